# SPDX-License-Identifier: Apache-2.0
"""Deltas put together: what waits for a slow reader becomes one chunk, and all of a request becomes a whole answer."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from common.answer_delta import OUTPUTS
from frontend.triton.tensors import Delta


def merge(deltas: Sequence[Delta]) -> Delta:
    """One delta that says what these say in their order."""
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


def _merge_calls(values: Iterable[tuple[dict[str, Any], ...]]) -> tuple[dict[str, Any], ...]:
    """Join neighbouring pieces of one call's arguments; a call's first delta (with its id) is kept as it is."""
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


def _join_of(name: str, default: Any) -> Callable[[tuple[Any, ...]], Any]:
    if name == "tool_calls":
        return _merge_calls
    if default == "":
        return "".join
    return _chain if default == () else _first


# The fields of a delta that outputs fill, in their order, and how the values of several deltas become one.
_outputs = attrgetter(*OUTPUTS)
_JOINS = tuple(_join_of(name, output.default) for name, output in OUTPUTS.items())


def complete_tool_calls(calls: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The whole tool calls that their deltas describe, without `index`, as a message holds them."""
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
