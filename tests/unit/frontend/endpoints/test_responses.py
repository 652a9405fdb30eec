# SPDX-License-Identifier: Apache-2.0
"""`/v1/responses` with the official client, whole and streamed."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest

from common.chat.request import ChatRequest
from common.errors import RequestError
from frontend.endpoints.response_items import Items
from frontend.endpoints.responses_input import LOGPROBS, RENAMED, SAME, SEALED
from frontend.protocol.chat import ChatBody
from frontend.protocol.refused import REFUSED_IN_CHAT, REFUSED_IN_RESPONSES
from frontend.triton.tensors import Delta
from tests.fakes.fake_triton import REFUSAL, Call, failure, finish, reply
from tests.fakes.frontend_server import Serving
from tests.support.doc_blocks import codes, rows, section

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}, "strict": False}


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return request.param


async def ask(served: Serving, streamed: bool, **fields):
    """Return the response; if it is streamed, the client's accumulator joins the events."""
    if not streamed:
        return await served.openai.responses.create(model="model", **fields)
    async with served.openai.responses.stream(model="model", **fields) as events:
        async for _ in events:
            pass
        return await events.get_final_response()


async def everything(call: Call) -> AsyncIterator:
    for text in ("Let me ", "think"):
        yield reply(reasoning_output=text)
    for text in ("I ", "ask 世界"):
        yield reply(text)
    for index in range(2):
        first = {"index": index, "id": f"call_{index}", "type": "function"}
        yield reply(tool_calls=[first | {"function": {"name": "get_weather", "arguments": ""}}])
        for piece in ('{"city": ', '"Boston, MA"}'):
            yield reply(tool_calls=[{"index": index, "function": {"arguments": piece}}])
    yield finish("tool_calls", completion=9, reasoning_tokens=2, num_cached_tokens=4)


async def test_text(served: Serving, streamed: bool) -> None:
    answer = await ask(served, streamed, input="Hi", instructions="Be short.", max_output_tokens=9, temperature=0.5)
    assert answer.output_text == "Hello world"
    assert answer.status == "completed" and answer.model == "model"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    call = served.triton.calls[0]
    assert call.messages["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
    ]
    assert call.inputs["max_tokens"] == [9] and call.inputs["temperature"] == [0.5]


async def test_every_kind_of_item(served: Serving, streamed: bool) -> None:
    served.triton.script = everything
    answer = await ask(served, streamed, input="Hi", tools=[TOOL])
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    assert answer.output[0].content[0].text == "Let me think"
    assert answer.output_text == "I ask 世界"
    assert [item.call_id for item in answer.output[2:]] == ["call_0", "call_1"]
    assert {item.arguments for item in answer.output[2:]} == {'{"city": "Boston, MA"}'}
    assert answer.usage.output_tokens_details.reasoning_tokens == 2
    assert answer.usage.input_tokens_details.to_dict() == {"cached_tokens": 4, "cache_write_tokens": 0}
    assert served.triton.calls[0].messages["tools"][0]["function"]["name"] == "get_weather"


async def test_the_events_are_numbered_and_balanced(served: Serving) -> None:
    served.triton.script = everything
    events = [
        e async for e in await served.openai.responses.create(model="model", input="Hi", tools=[TOOL], stream=True)
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 4
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "I ask 世界"


def test_a_merged_delta_ends_the_open_call_before_the_text_after_it() -> None:
    begun = {
        "index": 0,
        "id": "call_0",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": '},
    }
    items = Items()
    items.feed(Delta(tool_calls=(begun,)))
    items.feed(Delta(text="Done.", tool_calls=({"index": 0, "function": {"arguments": '"Boston"}'}},)))
    items.close()
    call, message = items.done
    assert (call["type"], call["arguments"], call["status"]) == ("function_call", '{"city": "Boston"}', "completed")
    assert (message["type"], message["content"][0]["text"]) == ("message", "Done.")


@pytest.mark.parametrize("before", [{"text": "Hm."}, {"reasoning": "Hm."}, {"tool_calls": "other"}, {}])
async def test_arguments_of_a_call_that_is_not_open_are_refused(before: dict[str, Any]) -> None:
    items = Items()
    if "tool_calls" in before:
        start = {"index": 1, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
        before = {"tool_calls": (start,)}
    items.feed(Delta(**before))
    with pytest.raises(RuntimeError, match="not open"):
        items.feed(Delta(tool_calls=({"index": 0, "function": {"arguments": "{}"}},)))
    items.close()
    assert all("{}" not in json.dumps(item.get("content", [])) for item in items.done)


async def cut_off(call: Call) -> AsyncIterator:
    yield reply("Hel")
    yield finish("length", completion=1)


async def test_length_is_incomplete(served: Serving) -> None:
    served.triton.script = cut_off
    answer = await served.openai.responses.create(model="model", input="Hi")
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    events = [event async for event in await served.openai.responses.create(model="model", input="Hi", stream=True)]
    assert events[-1].type == "response.incomplete" and events[-1].response.output_text == "Hel"


def cut_after(*replies):
    async def script(call: Call) -> AsyncIterator:
        for one in replies:
            yield one
        yield finish("length", completion=1)

    return script


def calling(index: int, *pieces: str) -> list:
    first = {"index": index, "id": f"call_{index}", "type": "function"}
    start = reply(tool_calls=[first | {"function": {"name": "get_weather", "arguments": ""}}])
    return [start, *(reply(tool_calls=[{"index": index, "function": {"arguments": piece}}]) for piece in pieces)]


@pytest.mark.parametrize(
    ("replies", "statuses"),
    [
        ([reply("Hel")], ["incomplete"]),
        ([reply(reasoning_output="Let me")], ["incomplete"]),
        ([reply(reasoning_output="Let me"), reply("Hel")], ["completed", "incomplete"]),
        ([*calling(0, "{}"), *calling(1, '{"city": ', '"Bos')], ["completed", "incomplete"]),
        (calling(0), ["incomplete"]),
        # Nothing can follow a whole object, so the client may run this call.
        ([reply("Hi"), *calling(0, '{"city": ', '"Boston"}')], ["completed", "completed"]),
    ],
)
async def test_the_item_that_was_cut_is_incomplete(
    served: Serving, streamed: bool, replies: list, statuses: list
) -> None:
    served.triton.script = cut_after(*replies)
    if not streamed:
        answer = await served.openai.responses.create(model="model", input="Hi", tools=[TOOL])
    else:
        stream = await served.openai.responses.create(model="model", input="Hi", tools=[TOOL], stream=True)
        events = [event async for event in stream]
        assert [event.item.status for event in events if event.type == "response.output_item.done"] == statuses
        answer = events[-1].response
    assert answer.status == "incomplete"
    assert [item.status for item in answer.output] == statuses


async def test_reasoning_is_in_a_content_part(served: Serving) -> None:
    served.triton.script = everything
    stream = await served.openai.responses.create(model="model", input="Hi", tools=[TOOL], stream=True)
    events = [event async for event in stream]
    of_reasoning = [e for e in events if getattr(e, "output_index", None) == 0]
    assert [event.type.removeprefix("response.") for event in of_reasoning] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert of_reasoning[1].part.to_dict() == {"type": "reasoning_text", "text": ""}
    assert of_reasoning[-2].part.to_dict() == {"type": "reasoning_text", "text": "Let me think"}


async def test_a_dialogue_with_tools(served: Serving) -> None:
    turns = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "59.0"},
        {"type": "function_call_output", "call_id": "c2", "output": "60.0"},
    ]
    await served.openai.responses.create(model="model", input=turns, tools=[TOOL])
    messages = served.triton.calls[0].messages["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert messages[3] == {"role": "tool", "tool_call_id": "c2", "content": "60.0"}


@pytest.mark.parametrize("arguments", ['{"city": "Bos', "null", "[]", "", None])
async def test_a_call_that_was_cut_off(served: Serving, arguments: str | None) -> None:
    turns = [
        {"role": "user", "content": "Weather?"},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "get_weather",
            "arguments": arguments,
            "status": "incomplete",
        },
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Go on."},
    ]
    await served.openai.responses.create(model="model", input=turns, tools=[TOOL])
    messages = ChatRequest.parse(json.dumps(served.triton.calls[0].messages)).messages
    called = messages[1]["tool_calls"][0]["function"]["arguments"]
    assert called == ({"city": "Bos"} if arguments == '{"city": "Bos' else {})
    assert messages[2]["content"] == "No."


async def test_format_choice_and_effort(served: Serving) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    text = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    await served.openai.responses.create(model="model", input="Hi", text=text, reasoning={"effort": "none"})
    sent = served.triton.calls[0].messages
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert (sent["enable_thinking"], sent["reasoning_effort"]) == (False, "none")
    choice = {"type": "function", "name": "get_weather"}
    await served.openai.responses.create(model="model", input="Hi", tools=[TOOL], tool_choice=choice)
    assert served.triton.calls[1].parameters["tool_choice"] == "function:get_weather"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "Hi", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "Hi", "previous_response_id": ""}, "previous_response_id"),
        ({"input": "Hi", "background": True}, "background"),
        ({"input": "Hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": 5}, "input"),
        ({}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0].content[0]"),
        ({"input": "Hi", "text": "plain"}, "text"),
        ({"input": "Hi", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "Hi", "max_tokens": 5}, "max_tokens"),
        ({"input": "Hi", "messages": []}, "messages"),
        ({"input": "Hi", "n": 2}, "n"),
        ({"input": "Hi", "logprobs": True}, "logprobs"),
        ({"input": "Hi", "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"input": "Hi", "top_logprobs": 2}, "top_logprobs"),
        ({"input": "Hi", "include": [LOGPROBS], "top_logprobs": 21}, "top_logprobs"),
        ({"input": "Hi", "include": "x"}, "include"),
        ({"input": "Hi", "include": [LOGPROBS, "message.output_text"]}, "include[1]"),
        ({"input": "Hi", "include": [5]}, "include[0]"),
        ({"input": "Hi", "truncation": "sometimes"}, "truncation"),
        ({"input": "Hi", "reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"input": "Hi", "reasoning": "low"}, "reasoning"),
        ({"input": "Hi", "max_tool_calls": 3}, "max_tool_calls"),
        ({"input": "Hi", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": "Hi", "conversation": "conv_1"}, "conversation"),
        ({"input": "Hi", "conversation": {"id": "conv_1"}}, "conversation"),
        ({"input": "Hi", "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"input": "Hi", "tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"input": "Hi", "tool_choice": "required"}, "tool_choice"),
        ({"input": "Hi", "tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": "Hi", "tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"input": "Hi", "tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice"),
        ({"input": "Hi", "text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]}, "input[0].output[0]"),
        (
            {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].output[0]",
        ),
        ({"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}, "input[0].name"),
        ({"input": [{"type": "custom_tool_call_output", "call_id": "c", "output": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:", "detail": "4K"}]}]},
            "input[0].content[0].detail",
        ),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "data:"}]}]},
            "input[0].content",
        ),
        ({"input": [{"type": "reasoning", "encrypted_content": 5}]}, "input[0].encrypted_content"),
        ({"input": [{"type": "reasoning", "encrypted_content": "triton-chat-1.5"}]}, "input[0].encrypted_content"),
        ({"input": "Hi", "metadata": {"a": 1}}, "metadata"),
        ({"input": "Hi", "instructions": ["x"]}, "instructions"),
        ({"input": "Hi", "text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"input": "Hi", "text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"input": "Hi", "text": {"format": {"type": "text"}}, "response_format": {"type": "text"}}, "text.format"),
        ({"input": "Hi", "response_format": {"type": "yaml"}}, "response_format"),
        ({"input": "Hi", "reasoning": {"effort": "colossal"}}, "reasoning.effort"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "content": "thought"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "narrator", "content": "b"}]}, "input[1].role"),
        ({"input": "Hi", "tools": [TOOL | {"name": "a b"}]}, "tools[0].name"),
        ({"input": "Hi", "stop": ["a"] * 1025}, "stop"),
        ({"input": "Hi", "guided_choice": []}, "guided_choice"),
    ],
)
async def test_refused(served: Serving, fields: dict, param: str) -> None:
    response = await served.http.post("/v1/responses", json=fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_an_error_of_triton_names_the_field_of_a_response(served: Serving, streamed: bool) -> None:
    async def too_long(call: Call) -> AsyncIterator[Any]:
        yield failure(REFUSAL)

    served.triton.script = too_long
    response = await served.http.post("/v1/responses", json={"input": "Hi", "stream": streamed})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "input", "context_length_exceeded")


ITEMS = [
    {"role": "user", "content": "Weather?"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Look it up."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
    {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
    {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "59.0"},
]
SCHEMA = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("fields", "sent", "own"),
    [
        ({"instructions": "Be short."}, "messages[0].content", "instructions"),
        ({"instructions": "Be short."}, "messages[1].content", "input[0].content"),
        ({"instructions": "Be short.", "input": "Hi"}, "messages[1].content", "input"),
        ({}, "messages[0].content[1].type", "input[0].content[1].type"),
        ({}, "messages[1].reasoning_content", "input[1]"),
        ({}, "messages[1].content", "input[2].content"),
        ({}, "messages[1].tool_calls[0].function.arguments", "input[3].arguments"),
        ({}, "messages[1].tool_calls[1].id", "input[4].call_id"),
        ({}, "messages[2].content", "input[5].output"),
        ({}, "messages[2].tool_call_id", "input[5].call_id"),
        ({}, "messages", "input"),
        ({}, "max_tokens", "max_output_tokens"),
        ({"tools": [TOOL]}, "tools[0].function.parameters", "tools[0].parameters"),
        ({"tools": [TOOL]}, "tool_choice.function.name", "tool_choice.name"),
        (
            {"text": {"format": SCHEMA}},
            "response_format.json_schema.schema.properties.a",
            "text.format.schema.properties.a",
        ),
        ({"text": {"format": SCHEMA}}, "response_format", "text.format"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "response_format.type"),
        ({"guided_regex": "a+"}, "structured_outputs.regex", "guided_regex"),
        ({"reasoning": {"effort": "low"}}, "reasoning_effort", "reasoning.effort"),
        ({}, "temperature", "temperature"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["first", "later"])
async def test_an_error_behind_the_frontend_names_the_own_field(
    served: Serving, streamed: bool, late: bool, fields: dict, sent: str, own: str
) -> None:
    """Preprocessing knows only the chat that a response was made into."""
    first = sent if sent.startswith("messages") and sent != "messages" else sent.partition(".")[0]

    async def refusing(call: Call) -> AsyncIterator[Any]:
        if late:
            yield reply("Hel")
        error = RequestError(
            f"{sent} is wrong, unlike 'messages[0]'; max_tokens are fine", param=first.partition("[")[0]
        )
        yield failure(error.encode())

    served.triton.script = refusing
    response = await served.http.post("/v1/responses", json={"input": ITEMS, "stream": streamed} | fields)
    if streamed and late:
        data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
        error = json.loads(data[-1])["error"]
    else:
        assert response.status_code == 400, response.text
        error = response.json()["error"]
    assert error["message"] == f"{own} is wrong, unlike 'messages[0]'; max_output_tokens are fine"
    assert own.startswith(error["param"])
    assert error["param"] == own or sent.partition(".")[0] == sent.partition("[")[0] or not sent.startswith("messages")


@pytest.mark.parametrize(
    ("path", "body", "sent", "own"),
    [
        ("/v1/completions", {"prompt": [5]}, "input_ids", "prompt"),
        ("/v1/completions", {"prompt": "a", "guided_regex": "a"}, "guided_decoding_guide", "guided_regex"),
        (
            "/v1/completions",
            {"prompt": "a", "structured_outputs": {"regex": "a"}},
            "guided_decoding_guide",
            "structured_outputs.regex",
        ),
        (
            "/v1/completions",
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
            "guided_decoding_guide",
            "response_format.json_schema.schema",
        ),
        ("/v1/chat/completions", {"guided_regex": "a"}, "structured_outputs.regex", "guided_regex"),
        ("/v1/chat/completions", {"max_completion_tokens": 9}, "max_tokens", "max_completion_tokens"),
        ("/v1/chat/completions", {}, "messages[0].content", "messages[0].content"),
    ],
)
async def test_so_do_those_of_other_endpoints(served: Serving, path: str, body: dict, sent: str, own: str) -> None:
    async def refusing(call: Call) -> AsyncIterator[Any]:
        yield failure(RequestError(f"{sent} is wrong", param=sent).encode())

    served.triton.script = refusing
    given = {"messages": [{"role": "user", "content": "Hi"}]} if path.startswith("/v1/chat") else {}
    response = await served.http.post(path, json=given | body)
    error = response.json()["error"]
    assert (error["message"], error["param"]) == (f"{own} is wrong", own)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (ITEMS[:4], {"content": "Let me see.", "reasoning_content": "Look it up.", "calls": 1}),
        ([*ITEMS[:2], *ITEMS[3:5]], {"reasoning_content": "Look it up.", "calls": 2}),
        (ITEMS[:2], {"reasoning_content": "Look it up."}),
        ([ITEMS[0], ITEMS[1], ITEMS[1], ITEMS[2]], {"reasoning_content": "Look it up.\n\nLook it up."}),
        (
            [ITEMS[0], {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}, ITEMS[3]],
            {"reasoning_content": "Hm.", "calls": 1},
        ),
        (
            [ITEMS[0], {"type": "reasoning", "summary": [], "encrypted_content": "xyz"}, ITEMS[2]],
            {"content": "Let me see.", "reasoning_content": None},
        ),
    ],
)
async def test_reasoning_of_earlier_turns_reaches_the_template(served: Serving, items: list, expected: dict) -> None:
    response = await served.http.post("/v1/responses", json={"input": items})
    assert response.status_code == 200, response.text
    chat = ChatRequest.parse(json.dumps(served.triton.calls[0].messages))
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    turn = chat.messages[1] | {"calls": len(chat.messages[1].get("tool_calls", ()))}
    assert {name: turn.get(name) for name in expected} == expected


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg-1"}, {"id": "msg-1"}])
async def test_a_reference_to_an_item_is_told_the_remedy(served: Serving, item: dict) -> None:
    response = await served.http.post("/v1/responses", json={"input": [item]})
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert "input[0] is an item_reference" in message and "store: false" in message


ENDPOINTS = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "completions": ("/v1/completions", {"prompt": "Hi"}),
    "responses": ("/v1/responses", {"input": "Hi"}),
}


@pytest.mark.parametrize("cells", rows(section("api.md", "Hints")), ids=lambda cells: cells[0].strip("`"))
async def test_the_hints_of_the_documentation_are_accepted(served: Serving, cells: list[str]) -> None:
    [name] = codes(cells[0])
    for endpoint in cells[1].split(", "):
        path, body = ENDPOINTS[endpoint]
        for value in codes(cells[2]):
            response = await served.http.post(path, json=body | {name: json.loads(value)})
            assert response.status_code == 200, response.text


async def test_every_field_of_a_chat_is_taken_or_refused() -> None:
    """None is ignored, because an answer without it would be another answer."""
    given_otherwise = {"tools", "tool_choice", "top_logprobs", *RENAMED}
    # Both only concern what a stream tells of its usage, which the last event always has.
    assert set(ChatBody.model_fields) == {*SAME, *given_otherwise, "stream_options"} | (
        set(REFUSED_IN_RESPONSES) & set(ChatBody.model_fields)
    )
    assert set(REFUSED_IN_CHAT) <= set(REFUSED_IN_RESPONSES)


@pytest.mark.parametrize(
    ("fields", "inputs", "parameters"),
    [
        ({"ignore_eos": True, "min_tokens": 3}, {"end_id": [-1], "min_tokens": [3]}, {}),
        ({"stop": ["x"], "bad_words": ["y"]}, {"bad_words": [b"y"]}, {"stop": '["x"]'}),
        ({"seed": 5, "top_k": 3, "logit_bias": {"7": -1}}, {"seed": [5], "top_k": [3], "logit_bias_ids": [7]}, {}),
        (
            {"include": [LOGPROBS], "top_logprobs": 2},
            {"return_log_probs": [True]},
            {"logprobs": True, "top_logprobs": 2},
        ),
    ],
)
async def test_fields_of_a_chat_reach_triton(served: Serving, fields: dict, inputs: dict, parameters: dict) -> None:
    response = await served.http.post("/v1/responses", json={"input": "Hi"} | fields)
    assert response.status_code == 200, response.text
    call = served.triton.calls[0]
    assert {name: call.inputs[name] for name in inputs} == inputs
    assert {name: call.parameters[name] for name in parameters} == parameters


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_choice": ["Rome"]},
        {"structured_outputs": {"choice": ["Rome"]}},
        {"response_format": {"type": "json_object"}},
    ],
)
async def test_constraints_of_a_chat_are_kept(served: Serving, fields: dict) -> None:
    response = await served.http.post("/v1/responses", json={"input": "Hi"} | fields)
    assert response.status_code == 200, response.text
    sent = served.triton.calls[0].messages
    wanted = fields if "guided_choice" not in fields else {"structured_outputs": {"choice": ["Rome"]}}
    assert {name: sent[name] for name in wanted} == wanted


def entry(text: str) -> dict:
    return {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}


def thinking_in(*groups: tuple[str, ...]) -> Callable[[Call], AsyncIterator]:
    """A script of an answer with reasoning, in groups of tokens per response."""

    async def script(call: Call) -> AsyncIterator:
        place = "reasoning_output"
        for group in groups:
            texts = {"reasoning_output": "", "text": ""}
            for token in group:
                if token == "</think>":
                    place = "text"
                elif token != "<end>":
                    texts[place] += token
            yield reply(texts.pop("text"), **texts, logprobs=[entry(token) for token in group])
        yield finish()

    return script


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
async def test_log_probabilities_are_those_of_the_message(served: Serving, streamed: bool, together: bool) -> None:
    tokens = ("Paris", " is", " it", "</think>", "Paris", " is", " 世", "界", "<end>")
    served.triton.script = thinking_in(*([tokens] if together else [(token,) for token in tokens]))
    answer = await ask(served, streamed, input="Hi", include=[LOGPROBS])
    [part] = answer.output[1].content
    assert part.text == "Paris is 世界"
    assert [one.token for one in part.logprobs] == ["Paris", " is", " 世", "界"]
    assert part.logprobs[0].bytes == list(b"Paris")


async def test_an_earlier_refusal_may_be_sent_back(served: Serving) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
        {"role": "user", "content": "Why?"},
    ]
    response = await served.http.post("/v1/responses", json={"input": turns})
    assert response.status_code == 200, response.text
    assert "I cannot." in str(served.triton.calls[0].messages["messages"][1]["content"])


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_allowed_tools(served: Serving, mode: str) -> None:
    tools = [TOOL, TOOL | {"name": "get_postcode"}, TOOL | {"name": "get_time"}]
    allowed = [{"type": "function", "name": name} for name in ("get_time", "get_weather")]
    choice = {"type": "allowed_tools", "mode": mode, "tools": allowed}
    answer = await served.openai.responses.create(model="model", input="Hi", tools=tools, tool_choice=choice)
    assert len(answer.tools) == 3 and answer.tool_choice.mode == mode
    call = served.triton.calls[0]
    assert [tool["function"]["name"] for tool in call.messages["tools"]] == ["get_weather", "get_time"]
    assert call.messages["tool_choice"] == mode and call.parameters.get("tool_choice", "auto") == mode


async def test_sealed_reasoning_comes_back(served: Serving, streamed: bool) -> None:
    """As clients do that keep only what OpenAI's own items have: a summary and the encrypted content."""
    served.triton.script = everything
    answer = await ask(served, streamed, input="Hi", tools=[TOOL], include=[SEALED], store=False)
    thought = answer.output[0].to_dict()
    assert thought["content"] == [{"type": "reasoning_text", "text": "Let me think"}]
    kept = {name: thought[name] for name in ("type", "id", "summary", "encrypted_content")}
    turns = [{"role": "user", "content": "Hi"}, kept, *(item.to_dict() for item in answer.output[1:])]
    turns += [{"type": "function_call_output", "call_id": f"call_{at}", "output": "59.0"} for at in range(2)]
    await ask(served, streamed, input=turns, tools=[TOOL])
    messages = served.triton.calls[1].messages["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[1]["reasoning_content"] == "Let me think" and messages[1]["content"][0]["text"] == "I ask 世界"
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_0", "call_1"]


async def test_reasoning_is_sealed_only_on_request(served: Serving, streamed: bool) -> None:
    served.triton.script = everything
    answer = await ask(served, streamed, input="Hi", tools=[TOOL])
    assert "encrypted_content" not in answer.output[0].to_dict(exclude_unset=True)


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


@pytest.mark.parametrize("detail", ["low", "high", "auto", "original", None])
async def test_pictures_in_messages_and_outputs_of_functions(served: Serving, detail: str | None) -> None:
    picture = {"type": "input_image", "image_url": PIXEL} | ({} if detail is None else {"detail": detail})
    turns = [
        {"role": "user", "content": [{"type": "input_text", "text": "What?"}, picture]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "This:"}, picture]},
    ]
    await served.openai.responses.create(model="model", input=turns, tools=[TOOL])
    call = served.triton.calls[0]
    user, _, tool = call.messages["messages"]
    sent = {"type": "image_url", "image_url": {} if detail is None else {"detail": detail}}
    assert user["content"] == [{"type": "text", "text": "What?"}, sent]
    assert tool == {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "This:"}, sent]}
    assert len(call.inputs["images"]) == 2


async def test_a_response_says_what_it_was_asked(served: Serving, streamed: bool) -> None:
    fields = {"metadata": {"a": "b"}, "prompt_cache_key": "k", "safety_identifier": "s", "truncation": "auto"}
    about = {"parallel_tool_calls": False, "tools": [{"type": "function", "name": "f"}], "tool_choice": "none"}
    answer = await ask(served, streamed, input="Hi", instructions="Be short.", **fields, **about)
    assert (answer.metadata, answer.prompt_cache_key, answer.safety_identifier) == ({"a": "b"}, "k", "s")
    assert (answer.parallel_tool_calls, answer.tool_choice, answer.instructions) == (False, "none", "Be short.")
    assert (answer.tools[0].name, answer.tools[0].strict) == ("f", False)
    # A prompt that is too long is a 400: nothing is dropped from it.
    assert answer.truncation == "disabled" and answer.background is False
    assert answer.completed_at >= answer.created_at


async def test_only_one_call_if_calls_are_not_parallel(served: Serving, streamed: bool) -> None:
    served.triton.script = everything
    answer = await ask(served, streamed, input="Hi", tools=[TOOL], parallel_tool_calls=False)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert served.triton.calls[0].messages["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("error", "code"),
    [(RequestError("messages[0] is wrong", param="messages"), "invalid_prompt"), (None, "server_error")],
)
async def test_a_response_that_fails_says_whose_fault_it_is(served: Serving, error: Any, code: str) -> None:
    async def failing(call: Call) -> AsyncIterator[Any]:
        yield reply("Hel")
        yield failure("the engine died" if error is None else error.encode())

    served.triton.script = failing
    events = []
    with pytest.raises(openai.APIError) as raised:
        async for event in await served.openai.responses.create(model="model", input="Hi", stream=True):
            events.append(event)
    assert events[-1].type == "response.failed" and events[-1].response.error.code == code
    assert events[-1].response.error.message == raised.value.message
