# SPDX-License-Identifier: Apache-2.0
"""The page's layout and the handlers of its events."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from chat_page.conversation import Conversation, Conversations
from chat_page.display import render
from chat_page.endpoint import Endpoint
from chat_page.request import THINKING, Controls, request_fields
from chat_page.turns import PageError, Turn, open_calls

_PLACEHOLDER = "Write a message; drop or paste pictures and videos"
_IDLE_LIMIT_S = 86400
# The id lives as long as its tab and survives reloads. randomUUID is not available over plain HTTP from other machines.
_TAB_ID = """(id, key) => {
    let kept = sessionStorage.getItem("conversation");
    if (!kept) {
        const bytes = crypto.getRandomValues(new Uint8Array(16));
        kept = Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
        sessionStorage.setItem("conversation", kept);
    }
    return [kept, key];
}"""
_NEW_TAB_ID = _TAB_ID.replace('sessionStorage.getItem("conversation")', "null")


class ChatPage:
    """The page as gradio `blocks`, and its conversations."""

    def __init__(self, endpoint: Endpoint, ask_key: bool) -> None:
        """Lay out the page; `ask_key` shows visitors a field for their own key."""
        self._endpoint = endpoint
        self._conversations = Conversations()
        # Answers in progress by gradio's session, so that closing a tab stops its answer.
        self._sessions: dict[str, Conversation] = {}
        with gr.Blocks(
            title="Triton Chat", fill_height=True, analytics_enabled=False, delete_cache=(3600, _IDLE_LIMIT_S)
        ) as self.blocks:
            self._lay_out(ask_key)
            self._connect_events()
        self.blocks.queue(default_concurrency_limit=None, api_open=False)

    def _lay_out(self, ask_key: bool) -> None:
        with gr.Sidebar(label="Settings", open=False):
            self._key = gr.Textbox(
                label="API key",
                info="Stays in this tab. Leave it empty if the server needs none.",
                type="password",
                visible=ask_key,
                elem_id="key",
            )
            self._model = gr.Dropdown([], label="Model", elem_id="model")
            self._system = gr.Textbox(label="System prompt", lines=3, elem_id="system")
            self._temperature = _number("Temperature", "temperature")
            self._top_p = _number("Top p", "top-p")
            self._max_tokens = _number("Max tokens", "max-tokens")
            self._seed = _number("Seed", "seed")
            self._thinking = gr.Radio(THINKING, value=THINKING[0], label="Thinking", elem_id="thinking")
            self._tools = gr.Textbox(
                label="Tools",
                info="A JSON list of functions. If the model calls one, your next message is the call's result.",
                lines=4,
                elem_id="tools",
            )
        self._id = gr.Textbox(visible="hidden", elem_id="conversation")
        self._chat = gr.Chatbot(
            show_label=False, scale=1, height="70vh", buttons=["copy"], feedback_options=None, elem_id="chat"
        )
        self._box = gr.MultimodalTextbox(
            placeholder=_PLACEHOLDER,
            show_label=False,
            file_types=["image", "video"],
            file_count="multiple",
            sources=["upload"],
            autofocus=True,
            max_plain_text_length=1_000_000,
            elem_id="box",
        )
        self._new = gr.Button("New chat", size="sm", elem_id="new")

    def _connect_events(self) -> None:
        controls = [self._model, self._system, self._temperature, self._top_p, self._max_tokens, self._seed]
        controls += [self._thinking, self._tools]
        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        on_open = {
            "inputs": [self._id, self._key],
            "outputs": [self._id, self._chat, self._box, self._model],
        }
        self.blocks.load(self._open, **on_open, js=_TAB_ID, **hidden)
        gr.on([self._new.click, self._chat.clear], self._start_new_chat, self._id, None, queue=False, **hidden).then(
            self._open, **on_open, js=_NEW_TAB_ID, **hidden
        )
        self._key.change(self._models, self._key, self._model, **hidden)
        self._box.submit(self._respond, [self._id, self._box, self._key, *controls], [self._chat, self._box], **hidden)
        self._box.stop(self._stop, self._id, None, queue=False, **hidden)
        self.blocks.unload(self._leave)

    async def _open(self, key: str, api_key: str) -> tuple[Any, ...]:
        """Show the conversation of a tab that was opened or reloaded; stop an answer that was still in progress."""
        conversation = self._conversation(key)
        conversation.stop()
        async for _ in conversation.updates():
            pass
        return key, render(conversation), self._input_ready(conversation), await self._models(api_key)

    async def _start_new_chat(self, key: str) -> None:
        self._conversation(key).forget()

    async def _models(self, api_key: str) -> Any:
        try:
            names = await self._endpoint.models(api_key)
        except PageError as error:
            gr.Warning(str(error), duration=None)
            return gr.update(choices=[], value=None)
        return gr.update(choices=names, value=names[0] if names else None)

    async def _respond(
        self, request: gr.Request, key: str, box: dict[str, Any], api_key: str, *controls: Any
    ) -> AsyncIterator[tuple[Any, Any]]:
        conversation = self._conversation(key)
        text, files = box["text"], tuple(map(Path, box["files"]))
        if conversation.busy or not (text.strip() or files):
            yield gr.skip(), gr.skip()
            return
        conversation.error, conversation.unanswered = "", []
        calls = open_calls(conversation.turns)
        asked = Turn("tool", text, call=calls[0]) if calls else Turn("user", text, files)
        conversation.turns.append(asked)
        if len(calls) > 1:
            yield render(conversation), self._input_ready(conversation)
            return
        try:
            fields = request_fields(Controls(*controls), conversation.turns)
            client = self._endpoint.client(api_key)
        except PageError as error:
            conversation.error = str(error)
            conversation.turns.remove(asked)
            yield render(conversation), gr.skip()
            return
        self._sessions[request.session_hash or ""] = conversation
        conversation.ask(client, fields, self._endpoint.error_message)
        yield render(conversation), gr.update(value=None, submit_btn=False, stop_btn=True)
        async for _ in conversation.updates():
            yield render(conversation), gr.skip()
        self._sessions.pop(request.session_hash or "", None)
        yield render(conversation), self._input_ready(conversation)

    def _input_ready(self, conversation: Conversation) -> Any:
        """The input field while no answer is in progress, with the unanswered question in it."""
        calls = open_calls(conversation.turns)
        placeholder = f"The result of {calls[0].name}" if calls else _PLACEHOLDER
        value: dict[str, Any] = {"text": "", "files": []}
        for turn in conversation.unanswered:
            value = {"text": turn.text, "files": [str(path) for path in turn.files]}
        return gr.update(value=value, submit_btn=True, stop_btn=False, placeholder=placeholder)

    async def _stop(self, key: str) -> None:
        self._conversation(key).stop()

    async def _leave(self, request: gr.Request) -> None:
        conversation = self._sessions.pop(request.session_hash or "", None)
        if conversation is not None:
            conversation.stop()

    def _conversation(self, key: str) -> Conversation:
        try:
            return self._conversations.get(key)
        except ValueError:
            raise gr.Error("This page was not loaded completely. Reload it.") from None


def _number(label: str, name: str) -> gr.Textbox:
    """A text field for a number. gr.Number would turn an empty field into 0."""
    return gr.Textbox(label=label, placeholder="the server's default", elem_id=name)
