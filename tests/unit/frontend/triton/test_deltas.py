# SPDX-License-Identifier: Apache-2.0
"""Merging deltas and tool calls."""

import itertools
from typing import Any

from frontend.triton.deltas import complete_tool_calls, merge
from frontend.triton.tensors import Delta


def start(index: int) -> dict[str, Any]:
    function = {"name": f"f{index}", "arguments": ""}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


def arguments(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": text}}


DELTAS = [
    Delta(reasoning="be"),
    Delta(text="a", logprobs=({"token": "a"},), completion_tokens=1),
    Delta(tool_calls=(start(0), arguments(0, '{"'))),
    Delta(tool_calls=(arguments(0, 'x":'), arguments(0, "1}"))),
    Delta(tool_calls=(start(1), arguments(1, "{}"))),
    Delta(text="b", finish_reason="tool_calls", completion_tokens=3, prompt_tokens=2),
]


def test_merging_in_any_groups_says_the_same() -> None:
    whole = merge(DELTAS)
    wanted = complete_tool_calls(call for delta in DELTAS for call in delta.tool_calls)
    assert whole.completion_tokens == 3
    assert [call["function"]["arguments"] for call in wanted] == ['{"x":1}', "{}"]
    for cuts in itertools.product((False, True), repeat=len(DELTAS) - 1):
        groups: list[list[Delta]] = [[DELTAS[0]]]
        for delta, cut in zip(DELTAS[1:], cuts, strict=True):
            if cut:
                groups.append([delta])
            else:
                groups[-1].append(delta)
        merged = [merge(group) for group in groups]
        assert complete_tool_calls(call for delta in merged for call in delta.tool_calls) == wanted
        assert merge(merged) == whole


def test_a_merged_delta_keeps_the_start_of_each_call_separate() -> None:
    calls = merge(DELTAS).tool_calls
    assert calls == (start(0), arguments(0, '{"x":1}'), start(1), arguments(1, "{}"))
