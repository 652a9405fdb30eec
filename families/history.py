# SPDX-License-Identifier: Apache-2.0
"""Earlier turns in the form that a chat template takes.

Templates disagree about the field of the reasoning, the ids of tool calls, several calls in a turn, and several system
messages; some refuse another form, some leave it out of the prompt. What a template does is found by rendering small
chats, once.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any, Literal

from common.chat.messages import Message
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.reasoning_switches import template_switches

# The fields of a message that templates read reasoning from; the first is that of normalised messages.
BLOCKS = "content"  # a list with a part of type "thinking"
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought", BLOCKS)
_GIVEN = REASONING_FIELDS[0]

# In each call of Kimi K2, which was trained with ids that name the function and count the calls of a chat.
_KIMI_CALL, _KIMI_ID = "<|tool_call_argument_begin|>", "functions."
_PART_TYPE = re.compile("""["']thinking["']""")
_NINE = re.compile("[a-zA-Z0-9]{9}")

# As the template gets them: own ids are the client's and may be missing, nine are nine letters and digits (Mistral).
Ids = Literal["own", "required", "nine", "kimi"]


@dataclass(frozen=True, slots=True)
class HistoryForm:
    """The form of earlier turns that a template takes.

    reasoning: one of REASONING_FIELDS. reasoning_or_text: a turn with calls may not have both.
    arguments: of calls, an object or JSON text. several_calls: a turn may have more than one.
    several_systems: a chat may begin with more than one system message.
    """

    reasoning: str = _GIVEN
    reasoning_or_text: bool = False
    arguments: Literal["object", "text"] = "object"
    several_calls: bool = True
    ids: Ids = "own"
    several_systems: bool = True


def fit_history(tokenizer: ChatTokenizer, source: str, messages: list[Message]) -> list[Message]:
    """The messages in the form that the template `source` takes; none is changed in place."""
    if all(message["role"] == "user" for message in messages):
        return messages
    return _fit(messages, history_form(tokenizer, source))


@lru_cache(maxsize=64)
def history_form(tokenizer: ChatTokenizer, source: str) -> HistoryForm:
    """The form of a template. What it does with none of the forms tried stays as it is."""
    return _Probe(tokenizer, source).form()


class _Probe:
    """Renders small chats with one template, and adopts each change that makes a chat complete in the prompt."""

    def __init__(self, tokenizer: ChatTokenizer, source: str) -> None:
        self._tokenizer, self._source = tokenizer, source
        self._switches = template_switches(tokenizer, source, True, None)
        self._adopted: dict[str, Any] = {}

    def form(self) -> HistoryForm:
        user, system = _message("user", "ask"), _message("system", "rule")
        one_call = [user, _call_turn("a"), _result("a")]
        without_ids = [user, *map(_without_id, one_call[1:])]
        self._try([system, _message("system", "second"), user], ("rule", "second"), several_systems=False)
        self._try(one_call, (), arguments="text")
        self._try(without_ids, (), ids="required")
        self._try(one_call, (), ids="nine")
        if _KIMI_CALL in self._source:
            self._adopted["ids"] = "kimi"
        two_calls = [user, _call_turn("a", "b"), _result("a"), _result("b")]
        self._try(two_calls, ("name_a", "name_b"), several_calls=False)
        thoughtful = [user, _call_turn("a") | {_GIVEN: _text("thought")}, _result("a")]
        for field in REASONING_FIELDS:
            prompt = self._render(thoughtful, reasoning=field) or ""
            # A template that does not know parts may write their list as it is.
            if prompt.count(_text("thought")) == 1 and not _PART_TYPE.search(prompt):
                self._adopted["reasoning"] = field
                break
        talkative = [user, thoughtful[1] | {"content": _text("text")}, _result("a")]
        self._try(talkative, (), reasoning_or_text=True)
        return HistoryForm(**self._adopted)

    def _try(self, messages: list[Message], texts: tuple[str, ...], **change: Any) -> None:
        """Adopt a change if only with it the template takes the messages and writes the texts."""
        if not self._complete(messages, texts) and self._complete(messages, texts, **change):
            self._adopted |= change

    def _complete(self, messages: list[Message], texts: tuple[str, ...], **change: Any) -> bool:
        prompt = self._render(messages, **change)
        return prompt is not None and all(_text(text) in prompt for text in texts)

    def _render(self, messages: list[Message], **change: Any) -> str | None:
        fitted = _fit(messages, HistoryForm(**self._adopted | change))
        try:
            return self._tokenizer.render(fitted, _TOOLS, template=self._source, template_kwargs=self._switches)
        except RequestError:
            return None


# Texts that no template has.
def _text(name: str) -> str:
    return f"probe_{name}"


_TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "description": "f", "parameters": {"type": "object", "properties": {}}},
    }
]


def _message(role: str, name: str) -> Message:
    return {"role": role, "content": _text(name)}


def _call_turn(*names: str) -> Message:
    calls = [
        {
            "type": "function",
            "id": _text(name),
            "function": {"name": _text(f"name_{name}"), "arguments": {"x": "1"}},
        }
        for name in names
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(name: str) -> Message:
    return _message("tool", f"result_{name}") | {"tool_call_id": _text(name)}


def _without_id(message: Message) -> Message:
    fields = {name: field for name, field in message.items() if name != "tool_call_id"}
    if "tool_calls" in fields:
        fields["tool_calls"] = [{name: call[name] for name in ("type", "function")} for call in fields["tool_calls"]]
    return fields


def _fit(messages: list[Message], form: HistoryForm) -> list[Message]:
    if not form.several_systems:
        messages = _with_one_system(messages)
    if form.ids != "own":
        messages = _with_ids(messages, form.ids)
    if not form.several_calls:
        messages = list(_with_one_call_each(messages))
    return [_fit_answer(message, form) if message["role"] == "assistant" else message for message in messages]


def _fit_answer(message: Message, form: HistoryForm) -> Message:
    """An assistant's message with its reasoning and arguments as the template reads them."""
    fields = {name: field for name, field in message.items() if name != _GIVEN}
    reasoning, content = message.get(_GIVEN), message["content"]
    if form.arguments == "text" and "tool_calls" in message:
        fields["tool_calls"] = [_with_text_arguments(call) for call in message["tool_calls"]]
    if form.reasoning_or_text and reasoning and content and "tool_calls" in message:
        reasoning, content = f"{reasoning}\n\n{content}", ""
    if form.reasoning == BLOCKS:
        thoughts = [{"type": "thinking", "thinking": reasoning}] if reasoning else []
        # Such templates refuse an answer without text, unless it is an empty part.
        empty = not content and not thoughts and "tool_calls" not in message
        if thoughts or empty:
            content = [*thoughts, *([{"type": "text", "text": content}] if content or empty else [])]
    elif reasoning is not None:
        fields[form.reasoning] = reasoning
    return {**fields, "content": content}


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def _with_one_system(messages: list[Message]) -> list[Message]:
    """The messages with the leading system messages as one."""
    leading = list(takewhile(lambda message: message["role"] == "system", messages))
    if len(leading) < 2:
        return messages
    text = "\n\n".join(message["content"] for message in leading)
    return [{**leading[0], "content": text}, *messages[len(leading) :]]


def _with_ids(messages: list[Message], ids: Ids) -> list[Message]:
    """The messages with ids that the template takes, the same in a call and its result.

    A result without an id is that of the first call without a result.
    """
    renamed: dict[str, str] = {}
    fitted: list[Message] = []
    unanswered: list[str] = []
    count = 0
    for message in messages:
        if "tool_calls" in message:
            calls, unanswered = [], []
            for call in message["tool_calls"]:
                own = call.get("id")
                new = _new_id(own or f"call_{count}", ids, call["function"]["name"], count)
                if own is not None:
                    renamed[own] = new
                calls.append({**call, "id": new})
                unanswered.append(new)
                count += 1
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool":
            own = message.get("tool_call_id") or next(iter(unanswered), f"call_{count}")
            # A result of no known call keeps its id, unless the template would refuse that.
            new = renamed.get(own) or (_new_id(own, ids, "", count) if ids == "nine" else own)
            unanswered = [other for other in unanswered if other != new]
            message = {**message, "tool_call_id": new}
        fitted.append(message)
    return fitted


def _new_id(own: str, ids: Ids, name: str, count: int) -> str:
    if ids == "nine" and not _NINE.fullmatch(own):
        # The same in every request, so that the prefix cache finds the turn.
        return hashlib.blake2b(own.encode(), digest_size=5).hexdigest()[:9]
    if ids == "kimi" and not own.startswith(_KIMI_ID):
        return f"{_KIMI_ID}{name}:{count}"
    return own


def _with_one_call_each(messages: list[Message]) -> Iterator[Message]:
    """The messages with a turn for each call, followed by its result; the first keeps the text and the reasoning."""
    rest = iter(range(len(messages)))
    for at in rest:
        message = messages[at]
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            yield message
            continue
        results = list(takewhile(lambda later: later["role"] == "tool", messages[at + 1 :]))
        for _ in results:
            next(rest)
        for number, call in enumerate(calls):
            before = message if number == 0 else {"role": "assistant", "content": ""}
            yield {**before, "tool_calls": [call]}
            own = [result for result in results if _answers(result, call)]
            if not own and results and "tool_call_id" not in results[0]:
                own = results[:1]
            yield from own
            results = [result for result in results if result not in own]
        yield from results


def _answers(result: Message, call: dict[str, Any]) -> bool:
    return "tool_call_id" in result and result["tool_call_id"] == call.get("id")
