# SPDX-License-Identifier: Apache-2.0
"""The order that the events of a streamed response must have, as a state machine, and what they must say together."""

from typing import Any

# State -> the events that may follow, without "response.", and the states that they lead to.
STEPS: dict[str, dict[str, str]] = {
    "": {"created": "created"},
    "created": {"in_progress": "between items"},
    "between items": {
        "output_item.added": "item",
        "completed": "end",
        "incomplete": "end",
        "failed": "failed",
    },
    # Which of these is right depends on the item's type, which `_Item` checks.
    "item": {
        "content_part.added": "part",
        "function_call_arguments.delta": "arguments",
        "function_call_arguments.done": "item ended",
    },
    "arguments": {"function_call_arguments.delta": "arguments", "function_call_arguments.done": "item ended"},
    "part": {"output_text.delta": "text", "reasoning_text.delta": "reasoning"},
    "text": {"output_text.delta": "text", "output_text.done": "text ended"},
    "reasoning": {"reasoning_text.delta": "reasoning", "reasoning_text.done": "text ended"},
    "text ended": {"content_part.done": "item ended"},
    "item ended": {"output_item.done": "between items"},
    "failed": {"error": "end"},
    "end": {},
}
# The types of items with each kind of text.
TEXTS = {"output_text": "message", "reasoning_text": "reasoning", "function_call_arguments": "function_call"}


def check_events(events: list[dict[str, Any]]) -> None:
    """Check the whole stream: its order, its numbers, and that the last response is the sum of the events."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    state = ""
    output: list[dict[str, Any]] = []
    item: _Item | None = None
    for event in events:
        kind = event["type"].removeprefix("response.")
        assert kind in STEPS[state], f"{kind} after {state}"
        state = STEPS[state][kind]
        if "response" in event:
            assert event["response"]["id"] == events[0]["response"]["id"]
            assert event["response"]["status"] == ("in_progress" if kind == "created" else kind)
            assert event["response"]["output"] == output
        elif kind == "output_item.added":
            item = _Item(event, len(output))
        elif kind != "error":
            assert item is not None
            item.take(kind, event)
            if kind == "output_item.done":
                output.append(event["item"])
    assert state == "end"


class _Item:
    """One item while it is written."""

    def __init__(self, event: dict[str, Any], index: int) -> None:
        self._begun = event["item"]
        self._index = index
        self._text = ""
        assert event["output_index"] == index and self._begun["status"] == "in_progress"
        assert not self._begun.get("content") and not self._begun.get("arguments")

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Check an event of the item against those before it."""
        assert event["output_index"] == self._index
        if kind == "output_item.done":
            self._check_done(event["item"])
            return
        assert event["item_id"] == self._begun["id"]
        what, _, step = kind.partition(".")
        if what == "content_part":
            assert event["content_index"] == 0 and event["part"]["text"] == self._text
            assert self._begun["type"] == TEXTS[event["part"]["type"]]
            return
        assert self._begun["type"] == TEXTS[what]
        if step == "delta":
            assert event["delta"]
            self._text += event["delta"]
        else:
            assert event.get("text", event.get("arguments")) == self._text

    def _check_done(self, item: dict[str, Any]) -> None:
        assert item["status"] in ("completed", "incomplete")
        changed = {"status", "content", "arguments", "encrypted_content"}
        same = {name: value for name, value in item.items() if name not in changed}
        assert same == {name: value for name, value in self._begun.items() if name not in changed}
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert text == self._text
