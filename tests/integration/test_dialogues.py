# SPDX-License-Identifier: Apache-2.0
"""Tools, reasoning and log-probabilities with scripted answers and the real Qwen3 and Gemma 3 tokenizers.

The weather and postcode dialogues are those of the Qwen3 document, both rounds, streamed and whole.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, OpenAI

from tests.support import family_dialogues
from tests.support.family_dialogues import DIALOGUES, write_checkpoint
from tests.support.scripted import ScriptedStack, scripted_stack

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        },
    },
}
POSTCODE_TOOL = {
    "type": "function",
    "function": {
        "name": "get_postcode",
        "description": "Get the postcode of a given location",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}
# Byte for byte what the model "writes": spacing and order are its own.
WEATHER_ARGUMENTS = '{"location": "Boston, MA",  "unit": "fahrenheit"}'
POSTCODE_ARGUMENTS = '{"location":"Boston"}'
THOUGHT = "Okay, the user asks about the weather.\nI should call a <tool>."
FINAL = "The current temperature in Boston, MA is **59.0°F**. That's mild! 🌤️"


def call_text(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


stacks = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("scripted_qwen3", "double_qwen3")]


@pytest.fixture(scope="module", params=stacks, ids=["python", "double"])
def qwen3(request) -> ScriptedStack:
    """The scripted stack, also with the double of TensorRT-LLM's C++ backend, which lacks this project's extensions."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def client(qwen3) -> OpenAI:
    return OpenAI(base_url=f"{qwen3.stack.url}/v1", api_key="unused", timeout=60, max_retries=0)


def ask(client: OpenAI, stream: bool, **request: Any) -> Any:
    """The completion, whole or streamed; the client's accumulator joins a stream."""
    if not stream:
        return client.chat.completions.create(model="", **request)
    with client.chat.completions.stream(model="", stream_options={"include_usage": True}, **request) as events:
        return events.get_final_completion()


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request) -> bool:
    return request.param


# Ids per response: one by one, in uneven lumps, and all at once.
@pytest.fixture(params=[[1], [3, 1, 7, 2, 5], [1000]], ids=["ones", "lumps", "one-lump"])
def sizes(request) -> list[int]:
    return request.param


@pytest.mark.parametrize(
    ("written", "text", "reasoning", "content"),
    [
        ("<think>\nLet me", " see.\n</think>\n\nParis.", " see.", "Paris."),
        ("<think>\nI know.\n</think>\n\nIt is", " Paris.", None, " Paris."),
        ("It is", " Paris.", None, " Paris."),
    ],
)
def test_a_message_is_continued_where_it_ends(qwen3, client, stream, written, text, reasoning, content):
    qwen3.play({"contains": "capital of France", "text": text})
    messages = [{"role": "user", "content": "The capital of France?"}, {"role": "assistant", "content": written}]
    choice = ask(client, stream, messages=messages, extra_body={"continue_final_message": True}).choices[0]
    assert (getattr(choice.message, "reasoning_content", None), choice.message.content) == (reasoning, content)


def test_a_dialogue_goes_on_after_a_call_that_was_cut_off(qwen3, client, stream):
    qwen3.play({"contains": '"arguments": {"location": "Bos"}', "text": "Which Boston?"})
    function = {"name": "get_current_weather", "arguments": '{"location": "Bos'}
    messages = [
        {"role": "user", "content": "What's the weather like in Boston today?"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "user", "content": "Go on."},
    ]
    choice = ask(client, stream, messages=messages, tools=[WEATHER_TOOL]).choices[0]
    assert choice.message.content == "Which Boston?"


def test_the_weather_dialogue(qwen3, client, stream, sizes):
    asked = f"<think>\n{THOUGHT}\n</think>\n\n{call_text('get_current_weather', WEATHER_ARGUMENTS)}"
    qwen3.play(
        {"contains": "<tool_response>\n59.0", "text": f"<think>\nIt is 59.\n</think>\n\n{FINAL}", "sizes": sizes},
        {"contains": "weather like in Boston", "text": asked, "sizes": sizes},
    )
    messages: list[dict] = [{"role": "user", "content": "What's the weather like in Boston today?"}]
    first = ask(client, stream, messages=messages, tools=[WEATHER_TOOL]).choices[0]
    assert first.finish_reason == "tool_calls"
    assert not first.message.content
    assert first.message.reasoning_content == THOUGHT
    [call] = first.message.tool_calls
    assert call.function.name == "get_current_weather"
    assert call.function.arguments == WEATHER_ARGUMENTS
    messages += [
        first.message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": "59.0"},
    ]
    second = ask(client, stream, messages=messages, tools=[WEATHER_TOOL]).choices[0]
    assert second.message.content == FINAL
    assert second.message.reasoning_content == "It is 59."
    assert second.finish_reason == "stop" and not second.message.tool_calls


def test_the_postcode_dialogue(qwen3, client, stream, sizes):
    calls = call_text("get_postcode", POSTCODE_ARGUMENTS) + "\n" + call_text("get_current_weather", WEATHER_ARGUMENTS)
    qwen3.play(
        {"contains": "<tool_response>\n02138", "text": "Postcode 02138, 59.0°F.", "sizes": sizes},
        {"contains": "postcode of Boston", "text": calls, "sizes": sizes},
    )
    messages: list[dict] = [{"role": "user", "content": "What's the postcode of Boston and what's the weather like?"}]
    request = {"tools": [WEATHER_TOOL, POSTCODE_TOOL], "extra_body": {"enable_thinking": False}}
    first = ask(client, stream, messages=messages, **request).choices[0]
    assert [c.function.name for c in first.message.tool_calls] == ["get_postcode", "get_current_weather"]
    assert [c.function.arguments for c in first.message.tool_calls] == [POSTCODE_ARGUMENTS, WEATHER_ARGUMENTS]
    assert len({c.id for c in first.message.tool_calls}) == 2
    messages.append(first.message.model_dump(exclude_none=True, exclude={"parsed"}))
    for call, result in zip(first.message.tool_calls, ["02138", "59.0"], strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    second = ask(client, stream, messages=messages, **request).choices[0]
    assert second.message.content == "Postcode 02138, 59.0°F."
    assert second.finish_reason == "stop"


def test_a_chained_call_after_a_tool_result(qwen3, client, stream):
    """The last message is a tool result, and the answer is another call."""
    qwen3.play({"contains": "02138", "text": call_text("get_current_weather", WEATHER_ARGUMENTS)})
    call = {"id": "call_1", "type": "function", "function": {"name": "get_postcode", "arguments": POSTCODE_ARGUMENTS}}
    messages = [
        {"role": "user", "content": "Postcode, then weather."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "02138"},
    ]
    answer = ask(client, stream, messages=messages, tools=[WEATHER_TOOL, POSTCODE_TOOL]).choices[0]
    assert [c.function.name for c in answer.message.tool_calls] == ["get_current_weather"]
    assert answer.finish_reason == "tool_calls"


HELLO = [{"role": "user", "content": "你好，你是谁？"}]


@pytest.mark.parametrize(("thinking", "tokens"), [(None, 13), (True, 13), (False, 17)])
def test_the_documents_prompt_tokens(qwen3, client, thinking, tokens):
    qwen3.play({"text": "你好！我是通义千问。"})
    extra = {} if thinking is None else {"enable_thinking": thinking}
    answer = ask(client, False, messages=HELLO, extra_body=extra)
    assert answer.usage.prompt_tokens == tokens
    assert answer.choices[0].message.content == "你好！我是通义千问。"


@pytest.mark.parametrize("how", [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}])
def test_the_other_ways_to_turn_thinking_off(qwen3, client, how):
    qwen3.play({"text": "你好！"})
    assert ask(client, False, messages=HELLO, extra_body=how).usage.prompt_tokens == 17


def test_reasoning_tokens_are_counted(qwen3, client, stream):
    qwen3.play({"text": "<think>\none two three\n</think>\n\nfour"})
    usage = ask(client, stream, messages=HELLO).usage
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


def test_counts_so_far_in_every_chunk(qwen3, client):
    qwen3.play({"text": "alpha beta gamma", "sizes": [1]})
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = client.chat.completions.create(model="", messages=HELLO, stream=True, stream_options=options)
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == last.usage.completion_tokens
    assert {chunk.usage.prompt_tokens for chunk in chunks} == {last.usage.prompt_tokens}


def test_a_cut_call_is_an_incomplete_item(qwen3, client):
    qwen3.play({"text": call_text("get_postcode", POSTCODE_ARGUMENTS), "sizes": [1]})
    tool = {"type": "function", "strict": False, **POSTCODE_TOOL["function"]}
    fields = {"model": "", "input": "Hi", "tools": [tool], "max_output_tokens": 14}
    whole = client.responses.create(**fields)
    *_, last = client.responses.create(**fields, stream=True)
    for response in (whole, last.response):
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        [item] = response.output
        assert (item.type, item.status) == ("function_call", "incomplete")
        assert POSTCODE_ARGUMENTS.startswith(item.arguments) and item.arguments != POSTCODE_ARGUMENTS


def test_a_mid_stream_failure_is_an_event_then_done(qwen3, client):
    qwen3.play({"text": "one two three four five", "error_after": 3, "delay_s": 0.05})
    with pytest.raises(APIError):
        ask(client, True, messages=HELLO)
    body = {"messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{qwen3.stack.url}/v1/chat/completions", json=body, timeout=60) as response:
        assert response.status_code == 200
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert data[-1] == "[DONE]"
    assert set(json.loads(data[-2])["error"]) == {"message", "type", "param", "code"}


def test_an_early_failure_keeps_its_status(qwen3, client):
    qwen3.play({"text": "never said", "error_after": 0})
    response = httpx.post(
        f"{qwen3.stack.url}/v1/chat/completions", json={"messages": HELLO, "stream": True}, timeout=60
    )
    assert response.status_code == 500
    assert "scripted" not in response.text or response.json()["error"]["type"]


def test_n_choices_stream_with_their_own_index(qwen3, client):
    qwen3.play({"text": "alpha beta gamma", "sizes": [1]})
    chunks = list(client.chat.completions.create(model="", messages=HELLO, n=3, stream=True))
    texts = {index: "" for index in range(3)}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert set(texts.values()) == {"alpha beta gamma"}


def test_logprobs_have_one_entry_a_token(qwen3, client, stream, sizes):
    qwen3.play({"text": "héllo 世界🙂", "sizes": sizes})
    # The C++ backend only has the log-probabilities of the tokens themselves.
    count = 0 if qwen3.double else 2
    fields = {"logprobs": True, "top_logprobs": count}
    entries = ask(client, stream, messages=HELLO, **fields).choices[0].logprobs.content
    raw = b"".join(bytes(entry.bytes) for entry in entries)
    assert raw.startswith("héllo 世界🙂".encode())
    assert all(entry.logprob == -0.5 and len(entry.top_logprobs) == count for entry in entries)


async def test_many_streams_do_not_mix(qwen3):
    rules = [
        {"contains": f"number {i}!", "text": f"answer {i} " * 20, "sizes": [1, 2, 3], "delay_s": 0.005}
        for i in range(24)
    ]
    qwen3.play(*rules)
    client = AsyncOpenAI(base_url=f"{qwen3.stack.url}/v1", api_key="unused", timeout=60, max_retries=0)

    async def one(number: int) -> str:
        messages = [{"role": "user", "content": f"number {number}!"}]
        chunks = await client.chat.completions.create(model="", messages=messages, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in chunks])

    answers = await asyncio.gather(*[one(number) for number in range(24)])
    assert answers == [f"answer {number} " * 20 for number in range(24)]


@pytest.fixture(scope="module")
def inline(tmp_path_factory, qwen3_tokenizer_dir) -> Iterator[ScriptedStack]:
    folder = tmp_path_factory.mktemp("inline")
    with scripted_stack("qwen3", qwen3_tokenizer_dir, folder, TRITON_CHAT_INLINE_REASONING="true") as running:
        yield running


def test_inline_reasoning_is_an_option(inline, stream):
    """The Qwen3 document shows the reasoning inside the content, tags and all."""
    text = "<think>\n好的，用户问我是谁。\n</think>\n\n你好！我是通义千问。😊"
    inline.play({"text": text})
    client = OpenAI(base_url=f"{inline.stack.url}/v1", api_key="unused", timeout=60, max_retries=0)
    assert ask(client, stream, messages=HELLO).choices[0].message.content == text


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory, gemma3_tokenizer_dir) -> Iterator[ScriptedStack]:
    with scripted_stack("gemma3", gemma3_tokenizer_dir, tmp_path_factory.mktemp("gemma3")) as running:
        yield running


def gemma_client(gemma3: ScriptedStack) -> OpenAI:
    return OpenAI(base_url=f"{gemma3.stack.url}/v1", api_key="unused", timeout=60, max_retries=0)


def test_gemmas_prompt_tokens_and_answer(gemma3, stream, sizes):
    text = "我是Gemma，一个由Google DeepMind训练的大型语言模型。\n\n1.  **x = 5/2**"
    gemma3.play({"text": text, "sizes": sizes})
    answer = ask(gemma_client(gemma3), stream, messages=HELLO)
    assert answer.usage.prompt_tokens == 14
    assert answer.choices[0].message.content == text


def test_gemmas_weather_dialogue(gemma3, stream, sizes):
    pythonic = '[get_current_weather(location="Boston, MA", unit="fahrenheit")]'
    gemma3.play(
        {"contains": "59.0", "text": FINAL, "sizes": sizes},
        {"contains": "weather like in Boston", "text": pythonic, "sizes": sizes},
    )
    client = gemma_client(gemma3)
    messages: list[dict] = [{"role": "user", "content": "What's the weather like in Boston today?"}]
    first = ask(client, stream, messages=messages, tools=[WEATHER_TOOL]).choices[0]
    [call] = first.message.tool_calls
    assert json.loads(call.function.arguments) == {"location": "Boston, MA", "unit": "fahrenheit"}
    messages += [
        first.message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": "59.0"},
    ]
    second = ask(client, stream, messages=messages, tools=[WEATHER_TOOL]).choices[0]
    assert second.message.content == FINAL


def test_gemma_requires_alternating_roles(gemma3):
    two_users = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    response = httpx.post(f"{gemma3.stack.url}/v1/chat/completions", json={"messages": two_users}, timeout=60)
    assert response.status_code == 400
    assert "alternate" in response.json()["error"]["message"]


# The others are in tests/unit/test_family_dialogues.py: a stack serves one format, and takes long to start.
@pytest.fixture(scope="module", params=["qwen3_coder"])
def own_format(request, tmp_path_factory, qwen3_tokenizer_dir) -> Iterator[tuple[ScriptedStack, str]]:
    checkpoint = write_checkpoint(DIALOGUES[request.param], qwen3_tokenizer_dir, tmp_path_factory.mktemp("checkpoint"))
    with scripted_stack(request.param, checkpoint, tmp_path_factory.mktemp(request.param)) as running:
        yield running, request.param


def test_a_dialogue_with_special_tokens_and_typed_arguments(own_format, stream, sizes):
    running, name = own_format
    dialogue = DIALOGUES[name]
    thought, second_thought = (
        (family_dialogues.THOUGHT, family_dialogues.SECOND_THOUGHT) if dialogue.thinks else (None, None)
    )
    running.play(
        {"contains": dialogue.spelled, "text": dialogue.answered, "sizes": sizes},
        {"contains": family_dialogues.QUESTION, "text": dialogue.asked, "sizes": sizes},
    )
    client = OpenAI(base_url=f"{running.stack.url}/v1", api_key="unused", timeout=60, max_retries=0)
    messages: list[dict] = [{"role": "user", "content": family_dialogues.QUESTION}]
    first = ask(client, stream, messages=messages, tools=[family_dialogues.TOOL])
    [choice] = first.choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    assert getattr(choice.message, "reasoning_content", None) == thought
    [call] = choice.message.tool_calls
    assert call.function.name == family_dialogues.NAME
    assert json.loads(call.function.arguments) == family_dialogues.ARGUMENTS
    assert not dialogue.exact or call.function.arguments == family_dialogues.JSON_ARGUMENTS
    assert dialogue.call_id in (None, call.id)
    reasoning_tokens = first.usage.completion_tokens_details.reasoning_tokens
    assert dialogue.thinks == (0 < reasoning_tokens < first.usage.completion_tokens)
    messages += [
        choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": family_dialogues.RESULT},
    ]
    [choice] = ask(client, stream, messages=messages, tools=[family_dialogues.TOOL]).choices
    assert choice.finish_reason == "stop" and not choice.message.tool_calls
    assert getattr(choice.message, "reasoning_content", None) == second_thought
    assert choice.message.content == family_dialogues.ANSWER
