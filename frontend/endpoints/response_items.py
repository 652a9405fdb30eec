# SPDX-License-Identifier: Apache-2.0
"""The output items of `/v1/responses` and their events: reasoning, message and function calls."""

from itertools import accumulate
from typing import Any

import orjson

from frontend.endpoints.sealed_reasoning import seal
from frontend.serving.answer import new_id
from frontend.triton.tensors import Delta

Event = dict[str, Any]
Entry = dict[str, Any]


class Items:
    """The output items, in order. Each is open until another begins.

    sealed: items of reasoning have `encrypted_content`, with which clients can send them back.
    Raises RuntimeError for arguments of a function call that is not open: clients could not tell whose they are.
    """

    def __init__(self, *, sealed: bool = False) -> None:
        self._sealed = sealed
        self.done: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._call: int | None = None  # index of the last call
        self._text = ""
        self._logprobs: list[Entry] = []
        self._text_logprobs = TextLogprobs()

    def feed(self, delta: Delta) -> list[Event]:
        """Add a delta and return its events."""
        events: list[Event] = []
        logprobs = self._text_logprobs.take(delta)
        calls = delta.tool_calls
        # The rest of the call that is open comes before what follows it in a merged delta.
        while calls and self._open is not None and self._open["type"] == "function_call" and "id" not in calls[0]:
            events += self._add_call(calls[0])
            calls = calls[1:]
        if delta.reasoning:
            events += self._add_text("reasoning", delta.reasoning)
        if delta.text:
            events += self._add_text("message", delta.text, logprobs)
        for call in calls:
            events += self._add_call(call)
        return events

    def close(self, *, cut: bool = False) -> list[Event]:
        """End the open item, if there is one, and return its events. cut: the answer ended before the model did."""
        item, self._open = self._open, None
        if item is None:
            return []
        text, self._text = self._text, ""
        logprobs, self._logprobs = self._logprobs, []
        at = self._at(item)
        item["status"] = "incomplete" if cut and not _is_whole_call(item, text) else "completed"
        if item["type"] == "function_call":
            item["arguments"] = text
            end = {"type": "response.function_call_arguments.done", "arguments": text, "name": item["name"], **at}
            ends: list[Event] = [end]
        else:
            part = _part(item, text, logprobs)
            item["content"] = [part]
            if self._sealed and item["type"] == "reasoning":
                item["encrypted_content"] = seal(text)
            end = {"type": f"response.{part['type']}.done", "content_index": 0, "text": text, **at}
            if item["type"] == "message":
                end["logprobs"] = _for_event(logprobs)
            ends = [end, {"type": "response.content_part.done", "content_index": 0, "part": part, **at}]
        self.done.append(item)
        index = at["output_index"]
        return [*ends, {"type": "response.output_item.done", "output_index": index, "item": item}]

    def _add_text(self, kind: str, text: str, logprobs: list[Entry] | None = None) -> list[Event]:
        events: list[Event] = []
        if self._open is None or self._open["type"] != kind:
            events = self.close()
            item: dict[str, Any] = {"id": new_id("rs" if kind == "reasoning" else "msg"), "type": kind}
            item |= {"summary": []} if kind == "reasoning" else {"role": "assistant", "content": []}
            events += self._begin(item)
            part = {"type": "response.content_part.added", "content_index": 0, "part": _part(item, "", [])}
            events.append(part | self._at(item))
        assert self._open is not None  # nosec B101 # narrows a type, checks no input
        self._text += text
        delta: Event = {"content_index": 0, "delta": text, **self._at(self._open)}
        if kind == "message":
            logprobs = logprobs or []
            self._logprobs += logprobs
            return [*events, delta | {"type": "response.output_text.delta", "logprobs": _for_event(logprobs)}]
        return [*events, delta | {"type": "response.reasoning_text.delta"}]

    def _add_call(self, call: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        function = call["function"]
        if "id" in call:
            item = {"id": new_id("fc"), "type": "function_call", "call_id": call["id"]}
            events = self.close() + self._begin(item | {"name": function["name"], "arguments": ""})
            self._call = call["index"]
        if self._open is None or self._open["type"] != "function_call" or call["index"] != self._call:
            raise RuntimeError("arguments of a function call that is not open")
        arguments = function.get("arguments", "")
        if arguments:
            self._text += arguments
            delta = {"type": "response.function_call_arguments.delta", "delta": arguments}
            events.append(delta | self._at(self._open))
        return events

    def _begin(self, item: dict[str, Any]) -> list[Event]:
        self._open = item | {"status": "in_progress"}
        index = len(self.done)
        return [{"type": "response.output_item.added", "output_index": index, "item": dict(self._open)}]

    def _at(self, item: dict[str, Any]) -> Event:
        return {"item_id": item["id"], "output_index": len(self.done)}


class TextLogprobs:
    """Finds the log-probabilities of a message's tokens among those of all tokens, reasoning and calls included."""

    def __init__(self) -> None:
        self._held: list[Entry] = []

    def take(self, delta: Delta) -> list[Entry]:
        """Return the entries of the tokens that hold the delta's text.

        A token's text may come with a later delta than its entry, if the text could be the start of a stop string.
        """
        if delta.logprobs:
            self._held += delta.logprobs
        if not self._held:
            return []
        if not delta.text:
            if delta.reasoning or delta.tool_calls:
                self._held = []
            return []
        held, self._held = self._held, []
        pieces = [bytes(entry.get("bytes") or ()) for entry in held]
        joined, text, reasoning = b"".join(pieces), delta.text.encode(), delta.reasoning.encode()
        # Reasoning comes first, and may hold the same words.
        start = joined.find(text, max(joined.find(reasoning), 0) + len(reasoning))
        if start < 0:
            return held
        stop = start + len(text)
        ends = list(accumulate(map(len, pieces)))
        self._held = [entry for entry, piece, end in zip(held, pieces, ends, strict=True) if end - len(piece) >= stop]
        places = zip(held, pieces, ends, strict=True)
        return [entry for entry, piece, end in places if end > start and end - len(piece) < stop]


def _is_whole_call(item: dict[str, Any], arguments: str) -> bool:
    """Whether the item is a function call whose arguments are a whole JSON object, to which nothing can be added."""
    if item["type"] != "function_call":
        return False
    try:
        return isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False


def _for_event(logprobs: list[Entry]) -> list[Entry]:
    """Return entries in the form of events, which, unlike a part's, are without bytes."""

    def short(entry: Entry) -> Entry:
        return {name: value for name, value in entry.items() if name != "bytes"}

    return [short(entry) | {"top_logprobs": [short(one) for one in entry["top_logprobs"]]} for entry in logprobs]


def _part(item: dict[str, Any], text: str, logprobs: list[Entry]) -> dict[str, Any]:
    if item["type"] == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
