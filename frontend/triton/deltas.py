# SPDX-License-Identifier: Apache-2.0
"""Deltas put together: what waits for a slow reader becomes one chunk, and all of a request becomes a whole answer."""

from collections.abc import Iterable, Sequence
from typing import Any

from frontend.triton.tensors import Delta


def merge(deltas: Sequence[Delta]) -> Delta:
    """One delta that says what these say in their order; counts and finish_reason come from whichever has them."""
    if len(deltas) == 1:
        return deltas[0]
    last: dict[str, Any] = {}
    for name in ("finish_reason", "completion_tokens", "reasoning_tokens", "prompt_tokens", "cached_tokens"):
        last[name] = next((value for delta in deltas if (value := getattr(delta, name)) is not None), None)
    return Delta(
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        tool_calls=_merge_arguments(call for delta in deltas for call in delta.tool_calls),
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        prompt_logprobs=tuple(entry for delta in deltas for entry in delta.prompt_logprobs),
        final=any(delta.final for delta in deltas),
        **last,
    )


def _merge_arguments(calls: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Join neighbouring pieces of one call's arguments; a call's first delta (with its id) stays alone."""
    merged: list[dict[str, Any]] = []
    pieces: list[str] = []
    index: int | None = None

    def flush() -> None:
        if pieces:
            merged.append({"index": index, "function": {"arguments": "".join(pieces)}})
            pieces.clear()

    for call in calls:
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
