# SPDX-License-Identifier: Apache-2.0
"""Merges deltas: those that wait for a slow reader into one chunk, all of a request into a whole answer."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from common.answer_delta import OUTPUTS, Encoding
from frontend.triton.tensors import Delta


def merge(deltas: Sequence[Delta]) -> Delta:
    """Merge deltas, in order, into one that says the same."""
    if len(deltas) == 1:
        return deltas[0]
    columns = zip(*map(_outputs, deltas), strict=True)
    merged = [join(column) for join, column in zip(_JOINS, columns, strict=True)]
    merged.append(any([delta.final for delta in deltas]))
    return Delta(*merged)


def _chain(values: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(values))


def _first(values: Iterable[Any]) -> Any:
    for value in values:
        if value is not None:
            return value
    return None


def _last(values: tuple[Any, ...]) -> Any:
    return _first(reversed(values))


def _merge_calls(values: Iterable[tuple[dict[str, Any], ...]]) -> tuple[dict[str, Any], ...]:
    """Join successive pieces of one call's arguments; the first delta of a call, with its id, is kept as it is."""
    merged: list[dict[str, Any]] = []
    pieces: list[str] = []
    index: int | None = None

    def flush() -> None:
        if pieces:
            merged.append({"index": index, "function": {"arguments": "".join(pieces)}})
            pieces.clear()

    for call in chain.from_iterable(values):
        if "id" in call:
            flush()
            merged.append(call)
            continue
        if call["index"] != index:
            flush()
            index = call["index"]
        pieces.append(call["function"]["arguments"])
    flush()
    return tuple(merged)


def _join_of(name: str, encoding: Encoding, default: Any) -> Callable[[tuple[Any, ...]], Any]:
    if name == "tool_calls":
        return _merge_calls
    if default == "":
        return "".join
    if encoding == "int":
        return _last
    return _chain if default == () else _first


# Getter of the fields of a delta that outputs fill; for each, how the values of several deltas become one.
_outputs = attrgetter(*OUTPUTS)
_JOINS = tuple(_join_of(name, output.encoding, output.default) for name, output in OUTPUTS.items())


def complete_tool_calls(calls: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assemble whole tool calls from their deltas, as in a message: without `index`."""
    whole: dict[int, dict[str, Any]] = {}
    for call in calls:
        function = call["function"]
        if "id" in call:
            arguments = function.get("arguments", "")
            whole[call["index"]] = {
                "id": call["id"],
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
        else:
            whole[call["index"]]["function"]["arguments"] += function["arguments"]
    return [whole[index] for index in sorted(whole)]
