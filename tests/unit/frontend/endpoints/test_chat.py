# SPDX-License-Identifier: Apache-2.0
"""Chat completions through the real server: what clients receive, and what Triton receives."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from tests.fakes.fake_triton import Call, answer_of, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("get_weather", "get_postcode")
]
ENTRY = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}


SETTINGS = {"max_model_len": 4096}


def two_calls(call: Call) -> AsyncIterator:
    """Two parallel tool calls, their arguments in pieces."""

    async def script() -> AsyncIterator:
        yield reply("Let me see.")
        for index, name in enumerate(("get_weather", "get_postcode")):
            first = {"index": index, "id": f"call_{index}", "type": "function"}
            yield reply(tool_calls=[first | {"function": {"name": name, "arguments": ""}}])
            for piece in ('{"city": ', '"Boston, MA"}'):
                yield reply(tool_calls=[{"index": index, "function": {"arguments": piece}}])
        yield finish("tool_calls", completion=9)

    return script()


async def thinking(call: Call) -> AsyncIterator:
    for text in ("I ", "think"):
        yield reply(reasoning_output=text)
    yield reply("So")
    yield finish(completion=3, reasoning_tokens=2, num_cached_tokens=4)


async def test_whole_answer(served: Serving) -> None:
    body = (await served.chat(model="org/model:1")).json()
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "org/model:1")
    message = {"role": "assistant", "content": "Hello world", "refusal": None}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    call = served.triton.calls[0]
    assert call.messages == HELLO
    assert call.inputs["stream"] == [False]
    assert "max_tokens" not in call.inputs
    assert all(shape[0] == 1 and len(shape) == 2 for shape in call.shapes.values())
    assert call.parameters["chat"] is True


async def test_streamed_chunks_in_order(served: Serving) -> None:
    chunks = await served.chunks(stream_options={"include_usage": True})
    assert len({(chunk["id"], chunk["object"], chunk["created"]) for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas[1:-1]) == "Hello world"
    assert deltas[-1] == {}
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert finishes == [None] * (len(finishes) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 7)
    assert served.triton.calls[0].inputs["stream"] == [True]


async def counting(call: Call) -> AsyncIterator:
    """An answer with the counts so far, as postprocessing sends them if asked."""
    yield reply("Hel", completion_tokens=2, reasoning_tokens=0, num_input_tokens=5)
    yield reply("lo", completion_tokens=3, reasoning_tokens=0)
    yield finish(completion=4)


@pytest.mark.parametrize(("path", "fields"), [(CHAT, {}), ("/v1/completions", {"prompt": "Hi"})])
@pytest.mark.parametrize("n", [1, 2])
async def test_continuous_usage(served: Serving, path: str, fields: dict, n: int) -> None:
    served.triton.script = counting
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = await served.chunks(path, n=n, stream_options=options, **fields)
    assert all(call.parameters["continuous_usage"] is True for call in served.triton.calls)
    for choice in range(n):
        usages = [chunk["usage"] for chunk in chunks if chunk["choices"][0]["index"] == choice]
        counts = [usage["completion_tokens"] for usage in usages]
        # Responses that wait for the reader are merged, so that not every count need be seen.
        assert counts == sorted(counts) and set(counts) <= {0, 2, 3, 4} and counts[-1] == 4
        assert counts[0] == 0 or path != CHAT
        assert all(usage["prompt_tokens"] == 5 for usage in usages)
        assert all(usage["total_tokens"] == 5 + usage["completion_tokens"] for usage in usages)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 4 * n)


async def test_continuous_usage_only_with_usage(served: Serving) -> None:
    chunks = await served.chunks(stream_options={"continuous_usage_stats": True})
    assert not any("usage" in chunk for chunk in chunks)


async def test_no_usage_unless_requested(served: Serving) -> None:
    assert not any("usage" in chunk for chunk in await served.chunks())


async def test_reasoning_in_both_fields(served: Serving) -> None:
    served.triton.script = thinking
    message = (await served.chat()).json()["choices"][0]["message"]
    assert message["reasoning_content"] == message["reasoning"] == "I think"
    assert message["content"] == "So"
    deltas = [chunk["choices"][0]["delta"] for chunk in await served.chunks()]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "I think"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "I think"
    assert not any("content" in delta and "reasoning" in delta for delta in deltas)
    usage = (await served.chat()).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2}


async def test_reasoning_can_be_left_out_or_inline(served: Serving) -> None:
    served.triton.script = thinking
    message = (await served.chat(include_reasoning=False)).json()["choices"][0]["message"]
    assert "reasoning" not in message
    await served.chat(separate_reasoning=False)
    assert served.triton.calls[-1].parameters["inline_reasoning"] is True


async def test_parallel_tool_calls_whole(served: Serving) -> None:
    served.triton.script = two_calls
    choice = (await served.chat(tools=TOOLS)).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["call_0", "call_1"]
    for call in choice["message"]["tool_calls"]:
        assert json.loads(call["function"]["arguments"]) == {"city": "Boston, MA"}


async def test_only_tool_calls_have_null_content(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        function = {"name": "get_weather", "arguments": ""}
        yield reply(tool_calls=[{"index": 0, "id": "call_0", "type": "function", "function": function}])
        yield finish("tool_calls")

    served.triton.script = script
    message = (await served.chat(tools=TOOLS)).json()["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": ""}


async def test_openai_client_accumulates_a_stream(served: Serving) -> None:
    served.triton.script = two_calls
    async with served.openai.chat.completions.stream(model="model", tools=TOOLS, **HELLO) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert (message.role, message.content) == ("assistant", "Let me see.")
    assert [call.function.name for call in message.tool_calls] == ["get_weather", "get_postcode"]
    assert [call.id for call in message.tool_calls] == ["call_0", "call_1"]
    assert all(json.loads(call.function.arguments) == {"city": "Boston, MA"} for call in message.tool_calls)


async def test_one_tool_call_if_parallel_ones_are_not_allowed(served: Serving) -> None:
    served.triton.script = two_calls
    message = (await served.chat(tools=TOOLS, parallel_tool_calls=False)).json()["choices"][0]["message"]
    assert [call["id"] for call in message["tool_calls"]] == ["call_0"]
    assert served.triton.calls[0].messages["parallel_tool_calls"] is False


async def test_synchronous_openai_client(served: Serving) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=WAIT)

    def ask() -> tuple[str | None, str]:
        whole = client.chat.completions.create(model="", **HELLO)
        stream = client.chat.completions.create(model="model", stream=True, **HELLO)
        return whole.choices[0].message.content, "".join(c.choices[0].delta.content or "" for c in stream)

    assert await asyncio.to_thread(ask) == ("Hello world", "Hello world")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs(served: Serving, stream: bool) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply("Hi", logprobs=[ENTRY])
        yield reply("", logprobs=[ENTRY])  # a token whose text is held back
        yield finish()

    served.triton.script = script
    if stream:
        chunks = await served.chunks(logprobs=True, top_logprobs=2)
        got = [entry for chunk in chunks for entry in (chunk["choices"][0]["logprobs"] or {}).get("content", [])]
    else:
        got = (await served.chat(logprobs=True, top_logprobs=2)).json()["choices"][0]["logprobs"]["content"]
    assert got == [ENTRY, ENTRY]
    call = served.triton.calls[0]
    assert (call.parameters["logprobs"], call.parameters["top_logprobs"]) == (True, 2)
    assert call.inputs["return_log_probs"] == [True]


@pytest.mark.parametrize("stream", [False, True])
async def test_two_choices(served: Serving, stream: bool) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply(f"choice {call.id[-1]}")
        yield finish("stop" if call.id.endswith("0") else "length", completion=4)

    served.triton.script = script
    if stream:
        chunks = await served.chunks(n=2, seed=7, stream_options={"include_usage": True})
        choices = [chunk["choices"][0] for chunk in chunks[:-1]]
        texts = ["".join(c["delta"].get("content", "") for c in choices if c["index"] == i) for i in (0, 1)]
        reasons = [c["finish_reason"] for i in (0, 1) for c in choices if c["index"] == i and c["finish_reason"]]
        roles = [c["index"] for c in choices if "role" in c["delta"]]
        assert roles == [0, 1]
        usage = chunks[-1]["usage"]
    else:
        body = (await served.chat(n=2, seed=7)).json()
        texts = [choice["message"]["content"] for choice in body["choices"]]
        reasons = [choice["finish_reason"] for choice in body["choices"]]
        usage = body["usage"]
    assert (texts, reasons) == (["choice 0", "choice 1"], ["stop", "length"])
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 8)
    assert [call.inputs["seed"] for call in served.triton.calls] == [[7], [8]]
    assert len({call.id for call in served.triton.calls}) == 2


async def test_every_parameter_reaches_triton(served: Serving) -> None:
    fields = {
        "max_tokens": 9,
        "max_completion_tokens": 8,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "stop": ["a", '"'],
        "seed": -2,
        "logit_bias": {"7": 1.5, "3": -100},
        "presence_penalty": 0.5,
        "frequency_penalty": -1,
        "repetition_penalty": 1.5,
        "min_tokens": 2,
        "ignore_eos": True,
        "bad_words": ["bad"],
        "stop_token_ids": [4, 5],
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "priority": 3,
        "allowed_token_ids": [7, 3],
        "cache_salt": "tenant",
        "user": "someone",
        "metadata": {"any": "thing"},
        "store": True,
        "service_tier": "auto",
        "never_heard_of": 1,
    }
    response = await served.chat(**fields)
    assert response.status_code == 200, response.text
    call = served.triton.calls[0]
    assert {name: value for name, value in call.inputs.items() if name not in ("messages", "repetition_penalty")} == {
        "max_tokens": [8],
        "temperature": [1.0],
        "top_p": [0.5],
        "top_k": [3],
        "seed": [2**64 - 2],
        "logit_bias_ids": [3, 7],
        "logit_bias_values": [-100.0, 1.5],
        "presence_penalty": [0.5],
        "frequency_penalty": [-1.0],
        "min_tokens": [2],
        "end_id": [-1],
        "bad_words": [b"bad"],
        "stop_token_ids": [4, 5],
        "stream": [True],  # a stop string can end only an engine that streams
        "return_num_input_tokens": [True],
        "exclude_input_in_output": [True],
    }
    assert call.inputs["repetition_penalty"] == [1.5]
    assert call.parameters == {
        "chat": True,
        "stop": '["a", "\\""]',
        "stop_token_ids": "[4, 5]",
        "include_stop": True,
        "min_tokens": 2,
        "skip_special_tokens": False,
        "min_p": "0.1",
        "request_priority": 3,
        "allowed_token_ids": "[7, 3]",
        "cache_salt": "tenant",
        "error_output": True,
    }


async def test_a_seed_of_minus_one_is_none(served: Serving) -> None:
    await served.chat(seed=-1, n=2)
    assert all("seed" not in call.inputs for call in served.triton.calls)


async def test_keys_have_their_own_prefix_cache() -> None:
    async def salts(**settings: Any) -> list[Any]:
        found = []
        async with serving(api_key=("key-a", "key-b"), **settings) as served:
            for key, fields in (("key-a", {}), ("key-b", {}), ("key-a", {"cache_salt": "x"}), ("key-a", {})):
                served.http.headers["Authorization"] = f"Bearer {key}"
                assert (await served.chat(**fields)).status_code == 200
                found.append(served.triton.calls[-1].parameters.get("cache_salt"))
        return found

    assert await salts() == [None, None, "x", None]
    first, other, salted, again = await salts(cache_salt_by_key=True)
    assert first == again and len({first, other, salted}) == 3 and None not in (first, other, salted)


async def test_unset_sampling_is_left_to_the_checkpoint(served: Serving) -> None:
    await served.chat()
    assert not {"temperature", "top_p"} & set(served.triton.calls[0].inputs)


@pytest.mark.parametrize("field", ["temperature", "top_p"])
async def test_zero_means_the_most_likely_token(served: Serving, field: str) -> None:
    await served.chat(**{field: 0})
    assert served.triton.calls[0].inputs["top_k"] == [1]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"enable_thinking": False}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": False}, True),
        ({"thinking": True}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}, "enable_thinking": True}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "high", "enable_thinking": False}, False),
    ],
)
async def test_thinking_switch(served: Serving, fields: dict, wanted: bool | None) -> None:
    await served.chat(**fields)
    call = served.triton.calls[0]
    assert call.parameters.get("enable_thinking") is wanted
    assert call.messages.get("enable_thinking") is wanted
    for name in ("chat_template_kwargs", "reasoning_effort"):
        assert call.messages.get(name) == fields.get(name)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"thinking_token_budget": 64}, 64),
        ({"thinking_token_budget": 0}, 0),
        ({"thinking_token_budget": -1}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, 1024),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "thinking_token_budget": 64}, 64),
        # Nothing to limit.
        ({"thinking_token_budget": 64, "enable_thinking": False}, None),
        ({"thinking": True}, None),
    ],
)
async def test_budget_of_reasoning(served: Serving, fields: dict, wanted: int | None) -> None:
    await served.chat(**fields)
    assert served.triton.calls[0].parameters.get("thinking_token_budget") == wanted


async def test_wrong_budgets_of_reasoning(served: Serving) -> None:
    for field, body in {
        "thinking_token_budget": {"thinking_token_budget": -2},
        "thinking": {"thinking": {"type": "perhaps"}},
    }.items():
        response = await served.chat(**body)
        assert response.status_code == 400
        assert response.json()["error"]["param"].startswith(field)


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, None),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "get_postcode"}}, "function:get_postcode"),
    ],
)
async def test_tool_choice_is_sent(served: Serving, choice: object, wanted: str | None) -> None:
    await served.chat(tools=TOOLS, tool_choice=choice)
    call = served.triton.calls[0]
    assert call.parameters["tools"] is True
    assert call.parameters.get("tool_choice") == wanted
    assert call.messages["tools"] == TOOLS
    assert call.messages.get("tool_choice") == choice


async def test_a_template_of_the_request(served: Serving) -> None:
    fields = {"chat_template": "{{ messages[0].content }}"}
    for path in (CHAT, "/tokenize"):
        error = (await served.http.post(path, json=HELLO | fields)).json()["error"]
        assert (error["param"], error["type"]) == ("chat_template", "invalid_request_error")
        assert "--trust-request-chat-template" in error["message"]
    assert not served.triton.calls
    async with serving(trust_request_chat_template=True) as trusting:
        for path in (CHAT, "/tokenize"):
            assert (await trusting.http.post(path, json=HELLO | fields)).status_code == 200
            long = await trusting.http.post(path, json=HELLO | {"chat_template": "x" * 65_537})
            assert long.json()["error"]["param"] == "chat_template"
        assert [call.messages["chat_template"] for call in trusting.triton.calls] == [fields["chat_template"]] * 2
        for path, body in (("/v1/responses", {"input": "Hi"}), ("/v1/completions", {"prompt": "Hi"})):
            refused = await trusting.http.post(path, json=body | fields)
            assert refused.json()["error"]["param"] == "chat_template"


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_allowed_tools(served: Serving, mode: str) -> None:
    allowed = [{"type": "function", "function": {"name": "get_postcode"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
    for path in (CHAT, "/tokenize"):
        response = await served.http.post(path, json=HELLO | {"tools": TOOLS, "tool_choice": choice})
        assert response.status_code == 200, response.text
    for call in served.triton.calls:
        assert (call.messages["tools"], call.messages["tool_choice"]) == (TOOLS[1:], mode)
    assert served.triton.calls[0].parameters.get("tool_choice", "auto") == mode


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_forced_call_may_come_with_a_response_format(served: Serving, choice: object) -> None:
    """Some clients send both with every request; preprocessing lets the call win."""
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    response = await served.chat(tools=TOOLS, tool_choice=choice, response_format=format_)
    assert response.status_code == 200, response.text
    sent = served.triton.calls[0]
    assert (sent.messages["tool_choice"], sent.messages["response_format"]) == (choice, format_)
    text = {"format": {"type": "json_object"}}
    tool = {"type": "function"} | TOOLS[0]["function"]
    body = {"input": "Hi", "tools": [tool], "tool_choice": "required", "text": text}
    assert (await served.http.post("/v1/responses", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"guided_regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
        ({"guided_json": {"type": "object"}}, {"structured_outputs": {"json": {"type": "object"}}}),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"structured_outputs": {"choice": ["a", "b"]}}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    ],
)
async def test_constraints_are_sent_with_the_messages(served: Serving, fields: dict, wanted: dict) -> None:
    response = await served.chat(**fields)
    assert response.status_code == 200, response.text
    assert served.triton.calls[0].messages == HELLO | wanted


async def test_nulls_of_an_earlier_answer_are_dropped(served: Serving) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    earlier = {"role": "assistant", "content": None, "tool_calls": [call], "audio": None, "function_call": None}
    result = {"role": "tool", "tool_call_id": "c", "content": "59.0"}
    await served.chat(messages=[*HELLO["messages"], earlier, result])
    sent = served.triton.calls[0].messages["messages"]
    assert sent[1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert sent[2] == result


async def test_images_are_sent_as_tensors(served: Serving) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGl4ZWxz", "detail": "low"}},
    ]
    await served.chat(messages=[{"role": "user", "content": parts}])
    call = served.triton.calls[0]
    assert call.inputs["images"] == [b"pixels"]
    assert call.messages["messages"][0]["content"] == [
        parts[0],
        {"type": "image_url", "image_url": {"detail": "low"}},
    ]


async def test_echo_of_a_continued_message(served: Serving) -> None:
    messages = [*HELLO["messages"], {"role": "assistant", "content": "Well, "}]
    fields = {"messages": messages, "continue_final_message": True, "echo": True}
    assert (await served.chat(**fields)).json()["choices"][0]["message"]["content"] == "Well, Hello world"
    deltas = [chunk["choices"][0]["delta"] for chunk in await served.chunks(**fields)]
    assert "".join(delta.get("content", "") for delta in deltas) == "Well, Hello world"
    assert served.triton.calls[0].messages["continue_final_message"] is True


async def test_unusual_text_is_unchanged(served: Serving) -> None:
    served.triton.script = answer_of("\u4f60\u597d\0\U0001f60a", '"\n\u2028')
    wanted = '\u4f60\u597d\0\U0001f60a"\n\u2028'
    assert (await served.chat(messages=[{"role": "user", "content": "a\0b"}])).json()["choices"][0]["message"][
        "content"
    ] == wanted
    deltas = [chunk["choices"][0]["delta"] for chunk in await served.chunks()]
    assert "".join(delta.get("content", "") for delta in deltas) == wanted


async def test_doubled_slash_and_empty_model(served: Serving) -> None:
    response = await served.http.post(f"{served.url}//v1/chat/completions", json=HELLO | {"model": ""})
    assert (response.status_code, response.json()["model"]) == (200, "model")


async def test_among_many_streams_waiting_deltas_are_merged(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        for number in range(500):
            yield reply(f"{number} ")
        yield finish(completion=500)

    served.triton.script = script
    with ExitStack() as others:
        for _ in range(200):
            others.enter_context(served.server.app.state.service.write_throttle)
        chunks = await served.chunks()
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == "".join(f"{number} " for number in range(500))
    assert len(chunks) < 250


async def test_first_content_is_not_held_back(served: Serving) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> AsyncIterator:
        yield reply("first")
        await go_on.wait()
        yield finish()

    served.triton.script = script
    async with asyncio.timeout(WAIT), served.http.stream("POST", CHAT, json=HELLO | {"stream": True}) as response:
        lines = response.aiter_lines()
        while "first" not in await anext(lines):
            pass
        go_on.set()
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
