# SPDX-License-Identifier: Apache-2.0
"""`/v1/messages` through the whole stack, with Anthropic's official client and Claude Code's shape of requests."""

from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message

from scripts.launcher import Stack
from tests.support import claude_code
from tests.support.agent_rules import call, seen
from tests.support.scripted import ScriptedStack
from tests.support.waiting import MODEL, PATIENCE_S

WEATHER = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
THOUGHT = "The user asks about the weather."
BLOCK = 128  # the largest number of tokens that vLLM keeps or forgets together


def client(stack: Stack) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stack.url, api_key="unused", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return request.param


def ask(stack: Stack, streamed: bool, **fields: Any) -> Message:
    fields = {"max_tokens": 200} | fields
    if not streamed:
        return client(stack).messages.create(**fields)
    with client(stack).messages.stream(**fields) as stream:
        return stream.get_final_message()


def test_tools_and_thinking(scripted_qwen3: ScriptedStack, streamed: bool) -> None:
    # Qwen3's template keeps the thinking of a turn that goes on with the tool's result.
    scripted_qwen3.play(
        seen(f"<think>\n{THOUGHT}\n</think>\n\nI look.\n<tool_call>", "<think>\nFine.\n</think>\n\nIt is mild."),
        seen("Weather?", f"<think>\n{THOUGHT}\n</think>\n\nI look.\n{call('get_weather', city='Boston')}"),
    )
    stack = scripted_qwen3.stack
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    fields: dict[str, Any] = {"model": "qwen3", "tools": [WEATHER], "thinking": {"type": "adaptive"}}
    first = ask(stack, streamed, messages=messages, **fields)
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    thinking, text, use = first.content
    assert (thinking.thinking.strip(), text.text.strip(), use.input) == (THOUGHT, "I look.", {"city": "Boston"})
    assert first.stop_reason == "tool_use"
    counted = client(stack).messages.count_tokens(messages=messages, **fields)
    assert first.usage.input_tokens + first.usage.cache_read_input_tokens == counted.input_tokens
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "59.0"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = ask(stack, streamed, messages=messages, **fields)
    assert (last.content[-1].text, last.stop_reason) == ("It is mild.", "end_turn")


def test_ends(scripted_qwen3: ScriptedStack, streamed: bool) -> None:
    scripted_qwen3.play({"text": "one two three four"})
    stack = scripted_qwen3.stack
    fields: dict[str, Any] = {"model": "qwen3", "messages": [{"role": "user", "content": "Count!"}]}
    fields["thinking"] = {"type": "disabled"}
    # As much as the context leaves is fine, whatever the client's maximum.
    stopped = ask(stack, streamed, stop_sequences=["!", " three"], **fields | {"max_tokens": 10**6})
    assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == (
        "one two",
        "stop_sequence",
        " three",
    )
    cut = ask(stack, streamed, **fields | {"max_tokens": 2})
    assert (cut.content[0].text, cut.stop_reason) == ("one two", "max_tokens")
    with pytest.raises(anthropic.BadRequestError, match="your messages resulted in"):
        ask(stack, streamed, **fields | {"messages": [{"role": "user", "content": "word " * 60_000}]})


@pytest.mark.python_engine("the double has no prefix cache")
def test_every_turn_finds_the_earlier_ones_in_the_cache(stack: Stack) -> None:
    """Neither marks of the cache nor the line that changes with each request change the beginning of the prompt."""
    before = 0
    for number in range(1, 6):
        body = claude_code.request(number, model=MODEL, max_tokens=1, stream=False)
        response = httpx.post(stack.url + claude_code.PATH, json=body, headers=claude_code.HEADERS, timeout=PATIENCE_S)
        assert response.status_code == 200, response.text
        usage = response.json()["usage"]
        cached = usage["cache_read_input_tokens"]
        # A block counts only if it is full, and the next turn differs from the beginning of the answer on.
        assert cached > before - BLOCK - 16, (number, usage)
        before = cached + usage["input_tokens"]
    assert before > 4 * BLOCK
