# SPDX-License-Identifier: Apache-2.0
"""The prompts of DeepSeek V3.2 and V4, whose checkpoints have no chat template but an encoder in Python.

Tool calls are written in DeepSeek's markup language, DSML. Every prompt ends with a tag that says whether the model
thinks: `<think>`, or `</think>` for an answer without reasoning.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from common.chat.messages import Message
from common.chat.request import ChatRequest
from common.chat.tools import Tool
from common.tokenizer import ChatTokenizer
from families.parsers import REASONING_FORMATS
from families.stylers.base import Styler

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
DSML = "｜DSML｜"
THINK, END_THINK = REASONING_FORMATS["think"].open, REASONING_FORMATS["think"].close


class DSMLStyler(Styler):
    """The base of both families. A checkpoint or server with a chat template is rendered by that instead."""

    turn_ends = (EOS,)
    # The name of the element around calls.
    calls_element: ClassVar[str]
    # The key in families.parsers.TOOL_FORMATS of its calls.
    tools: ClassVar[str]
    # Whether the model thinks unless the request says otherwise.
    thinks: ClassVar[bool]

    @abstractmethod
    def describe(self, tools: tuple[Tool, ...]) -> str:
        """The text after the first system message that tells the model its tools and how to call them."""

    @abstractmethod
    def turns(self, messages: list[Message]) -> list[Message]:
        """The messages with runs of tool results, and what shares a turn with them, as one message each."""

    def preface(self, chat: ChatRequest) -> str:
        """The text before the first message of a chat with thinking."""
        return ""

    def keeps_reasoning(self, chat: ChatRequest) -> bool:
        """Whether the reasoning of all turns is in the prompt, not only that after the last user turn."""
        return False

    def reasoning(self, tokenizer: ChatTokenizer) -> str | None:
        return "think" if tokenizer.template is None else super().reasoning(tokenizer)

    def tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        return self.tools if tokenizer.template is None else super().tool_parser(tokenizer)

    def renders_tools(self, tokenizer: ChatTokenizer) -> bool:
        return tokenizer.template is None or super().renders_tools(tokenizer)

    def _render(self, tokenizer: ChatTokenizer, chat: ChatRequest) -> str:
        if tokenizer.template is not None or chat.chat_template is not None:
            return super()._render(tokenizer, chat)
        asked = self.thinking(chat)
        thinking, keep = self.thinks if asked is None else asked, self.keeps_reasoning(chat)
        turns = self.turns(self._with_tools(chat))
        last_user = max((at for at, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        written = [BOS, self.preface(chat) if thinking else ""]
        for at, turn in enumerate(turns):
            role, last = turn["role"], at + 1 == len(turns)
            if role == "assistant":
                reasons = thinking and (keep or at > last_user)
                written.append(self._answer(turn, reasons=reasons, cut=last and chat.continue_final_message))
            else:
                written.append((USER if role == "user" else "") + turn["content"])
            if chat.add_generation_prompt if last else _answered(role, turns[at + 1]["role"]):
                # Results belong to the answer that asked for them, which goes on after them.
                written.append("\n\n" if role == "tool" else ASSISTANT)
                written.append(THINK if thinking and (keep or at >= last_user) else END_THINK)
        return "".join(written)

    def _generation_prompt(self, tokenizer: ChatTokenizer, thinking: bool | None) -> str:
        return self._render(tokenizer, ChatRequest([{"role": "user", "content": "?"}], thinking=thinking)).rstrip()

    def _with_tools(self, chat: ChatRequest) -> list[Message]:
        """The messages with the tools at the end of the first system message, which is created if there is none."""
        if not chat.tools:
            return chat.messages
        messages = list(chat.messages)
        at = next((at for at, message in enumerate(messages) if message["role"] == "system"), None)
        if at is None:
            at = 0
            messages.insert(0, {"role": "system", "content": ""})
        messages[at] = {**messages[at], "content": f"{messages[at]['content']}\n\n{self.describe(chat.tools)}"}
        return messages

    def _answer(self, turn: Message, *, reasons: bool, cut: bool) -> str:
        """An earlier answer. reasons: with its reasoning. cut: the model continues it."""
        calls = "\n".join(_call(call["function"]) for call in turn.get("tool_calls", ()))
        text: str = turn["content"]
        if calls:
            text += f"\n\n<{DSML}{self.calls_element}>\n{calls}\n</{DSML}{self.calls_element}>"
        if reasons:
            # Without any text yet it is the reasoning that is continued.
            text = turn.get("reasoning_content", "") + ("" if cut and not text else END_THINK) + text
        return text if cut else text + EOS


def _answered(role: str, following: str) -> bool:
    """Whether the model's answer begins between two turns: not before a system message, which it is yet to read."""
    return following != "system" if role in ("user", "tool") else (role, following) == ("system", "assistant")


def _call(function: Mapping[str, Any]) -> str:
    arguments = "\n".join(_parameter(name, value) for name, value in function["arguments"].items())
    return f'<{DSML}invoke name="{function["name"]}">\n{arguments}\n</{DSML}invoke>'


def _parameter(name: str, value: Any) -> str:
    is_text = isinstance(value, str)
    text = value if is_text else json.dumps(value, ensure_ascii=False)
    return f'<{DSML}parameter name="{name}" string="{str(is_text).lower()}">{text}</{DSML}parameter>'


def functions(tools: tuple[Tool, ...]) -> str:
    """The functions of a chat's tools, each as JSON in a line of its own."""
    return "\n".join(json.dumps(tool.definition["function"], ensure_ascii=False) for tool in tools)
