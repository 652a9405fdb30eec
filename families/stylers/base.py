# SPDX-License-Identifier: Apache-2.0
"""What every family does alike: render the checkpoint's chat template and read off it how answers are written."""

from collections.abc import Mapping
from typing import Any, ClassVar

from common.chat.messages import Message
from common.chat.request import ChatRequest
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.parsers import AnswerFormat

THINK_TAGS = ("<think>", "</think>")


class Styler:
    """How one model family is prompted and how its answers are read.

    A subclass says what the chat template cannot; each hook below may be overridden by itself.
    """

    name: ClassVar[str]
    # Tokens that end a turn of this family, added to the end ids where a checkpoint's configuration lacks them.
    turn_ends: ClassVar[tuple[str, ...]] = ()

    def __init__(self, template_defaults: Mapping[str, Any] | None = None) -> None:
        """template_defaults: the server's own values for `chat_template_kwargs`, which a request's override."""
        self.template_defaults: Mapping[str, Any] = dict(template_defaults or {})

    def render(self, tokenizer: ChatTokenizer, chat: ChatRequest) -> str:
        """The prompt text, BOS included where the template writes one.

        Raises RequestError for a chat that the family cannot express.
        """
        prompt = tokenizer.render(
            self.arrange(chat),
            self.rendered_tools(chat),
            template=self.template(tokenizer),
            add_generation_prompt=chat.add_generation_prompt,
            continue_final_message=chat.continue_final_message,
            template_kwargs=self.template_kwargs(chat),
        )
        unwanted = chat.template_kwargs.get("enable_thinking") is False and chat.add_generation_prompt
        if unwanted and prompt.rstrip().endswith(THINK_TAGS[0]):
            message = "enable_thinking cannot be false: the served model always thinks"
            raise RequestError(message, param="enable_thinking")
        return prompt

    def answer_format(self, tokenizer: ChatTokenizer) -> AnswerFormat:
        """How the family writes reasoning and tool calls, judged by what its template renders."""
        tags = self.reasoning_tags(tokenizer)
        if tags is None:
            return AnswerFormat(tool_parser=self.tool_parser(tokenizer))
        opening, closing = tags
        by_default = self._generation_prompt(tokenizer, {})
        switched_on = self._generation_prompt(tokenizer, {"enable_thinking": True})
        switched_off = self.template_defaults.get("enable_thinking") is False or by_default.endswith(closing)
        return AnswerFormat(
            reasoning_tags=tags,
            reasoning_starts_open=switched_on.endswith(opening),
            # A template that opens the tag whatever it is told is of a model that always thinks.
            thinking_default=by_default.endswith(opening) or not switched_off,
            tool_parser=self.tool_parser(tokenizer),
        )

    def stop_ids(self, tokenizer: ChatTokenizer) -> tuple[int, ...]:
        """Ids of `turn_ends` that the vocabulary has."""
        ids = (tokenizer.token_id(token) for token in self.turn_ends)
        return tuple(item for item in ids if item is not None)

    def template_kwargs(self, chat: ChatRequest) -> dict[str, Any]:
        """Variables for the template: the server's, overridden by the request's."""
        return {**self.template_defaults, **chat.template_kwargs}

    def arrange(self, chat: ChatRequest) -> list[Message]:
        """The messages as the family's template wants them."""
        return chat.messages

    def rendered_tools(self, chat: ChatRequest) -> list[dict[str, Any]]:
        """The tool definitions that the template is given."""
        return [tool.definition for tool in chat.tools]

    def template(self, tokenizer: ChatTokenizer) -> str | None:
        """Jinja source to use instead of the checkpoint's chat template, or None."""
        return None

    def reasoning_tags(self, tokenizer: ChatTokenizer) -> tuple[str, str] | None:
        """The tags around reasoning; a template that handles them is the sign that the model writes them."""
        return THINK_TAGS if THINK_TAGS[1] in (tokenizer.template or "") else None

    def tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        """Key of families.parsers.TOOL_PARSERS, or None where tools are not supported."""
        return None

    def _generation_prompt(self, tokenizer: ChatTokenizer, kwargs: Mapping[str, Any]) -> str:
        chat = ChatRequest(messages=[{"role": "user", "content": "?"}], template_kwargs=kwargs)
        prompt = tokenizer.render(
            self.arrange(chat), template=self.template(tokenizer), template_kwargs=self.template_kwargs(chat)
        )
        return prompt.rstrip()
