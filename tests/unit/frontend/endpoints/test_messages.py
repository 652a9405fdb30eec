# SPDX-License-Identifier: Apache-2.0
"""`/v1/messages` with Anthropic's official client and with requests in Claude Code's shape."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

from common.chat.request import ChatRequest
from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from frontend.endpoints.messages_input import CONVERTED, RENAMED, SAME
from frontend.protocol.chat import ChatBody
from frontend.protocol.ignored import IGNORED_IN_MESSAGES
from frontend.protocol.refused import REFUSED_IN_CHAT, REFUSED_IN_MESSAGES
from preprocessing.prompt import PromptBuilder, PromptRequest
from tests.fakes.fake_triton import REFUSAL, Call, Script, answer_of, failure, finish, reply
from tests.fakes.frontend_server import WAIT, Serving, serving
from tests.support import claude_code

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/messages"
HI = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 50).decode()


SETTINGS = {"max_body_bytes": 1_000_000}


@pytest.fixture
def client(served: Serving) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=served.url, api_key="none", max_retries=0, timeout=WAIT)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return request.param


async def ask(client: anthropic.AsyncAnthropic, streamed: bool, **fields: Any) -> Message:
    """Return the message; if it is streamed, the client's accumulator joins the events."""
    fields = {"model": "model", "max_tokens": 50, "messages": HI} | fields
    if not streamed:
        return await client.messages.create(**fields)
    async with client.messages.stream(**fields) as stream:
        return await stream.get_final_message()


async def post(served: Serving, path: str = PATH, **fields: Any) -> Any:
    return await served.http.post(path, json={"model": "model", "max_tokens": 50, "messages": HI} | fields)


async def prompt(served: Serving, **fields: Any) -> dict[str, Any]:
    """Return the chat that a body becomes, as Triton gets it."""
    response = await post(served, **fields)
    assert response.status_code == 200, response.text
    return served.triton.calls[-1].messages


async def sent(served: Serving, *messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """Return the messages that templates get, with their content as text."""
    chat = await prompt(served, messages=list(messages), **fields)
    return ChatRequest.parse(json.dumps(chat)).messages


def play(*replies: Any) -> Script:
    async def script(call: Call) -> AsyncIterator[Any]:
        for one in replies:
            yield one

    return script


def calling(index: int, *pieces: str) -> list[Any]:
    first = {"index": index, "id": f"call_{index}", "type": "function"}
    start = reply(tool_calls=[first | {"function": {"name": "get_weather", "arguments": ""}}])
    return [start, *(reply(tool_calls=[{"index": index, "function": {"arguments": piece}}]) for piece in pieces)]


def everything() -> Script:
    counts = {"completion": 9, "prompt": 10, "reasoning_tokens": 2, "num_cached_tokens": 4}
    return play(
        reply(reasoning_output="Let me ", num_input_tokens=10, num_cached_tokens=4),
        reply(reasoning_output="think"),
        reply("I "),
        reply("ask 世界"),
        *calling(0, '{"city": ', '"Boston, MA"}'),
        *calling(1, '{"city": "Rome"}'),
        finish("tool_calls", **counts),
    )


async def test_text(served: Serving, client: anthropic.AsyncAnthropic, streamed: bool) -> None:
    answer = await ask(client, streamed, system="Be short.", max_tokens=9, extra_body={"temperature": 0.5, "top_k": 3})
    assert [(block.type, block.text) for block in answer.content] == [("text", "Hello world")]
    assert (answer.role, answer.model, answer.stop_reason, answer.stop_sequence) == (
        "assistant",
        "model",
        "end_turn",
        None,
    )
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 2)
    call = served.triton.calls[0]
    assert call.inputs["max_tokens"] == [9] and call.inputs["temperature"] == [0.5] and call.inputs["top_k"] == [3]
    messages = ChatRequest.parse(json.dumps(call.messages)).messages
    assert messages == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]


async def test_every_kind_of_block(served: Serving, client: anthropic.AsyncAnthropic, streamed: bool) -> None:
    served.triton.script = everything()
    answer = await ask(client, streamed, tools=[TOOL])
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, *calls = answer.content
    assert (thinking.thinking, bool(thinking.signature), text.text) == ("Let me think", True, "I ask 世界")
    assert [(call.id, call.name, call.input) for call in calls] == [
        ("call_0", "get_weather", {"city": "Boston, MA"}),
        ("call_1", "get_weather", {"city": "Rome"}),
    ]
    assert answer.stop_reason == "tool_use"
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (6, 4, 0)
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (9, 2)
    definition = served.triton.calls[0].messages["tools"][0]["function"]
    assert (definition["name"], definition["parameters"]) == (TOOL["name"], TOOL["input_schema"])


async def test_the_sequence_of_events(served: Serving) -> None:
    served.triton.script = everything()
    response = await post(served, tools=[TOOL], stream=True)
    assert response.headers["request-id"] == response.headers["x-request-id"]
    events = read_events(response.text)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "ping"] and kinds[-2:] == ["message_delta", "message_stop"]
    usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "input_tokens": 6, "output_tokens": 0}
    assert events[0]["message"]["usage"] == usage
    blocks = [event for event in events if "index" in event]
    assert [(event["index"], event["type"].removeprefix("content_block_"), told(event)) for event in blocks] == [
        (0, "start", "thinking"),
        (0, "delta", "thinking_delta"),
        (0, "delta", "thinking_delta"),
        (0, "delta", "signature_delta"),
        (0, "stop", None),
        (1, "start", "text"),
        (1, "delta", "text_delta"),
        (1, "delta", "text_delta"),
        (1, "stop", None),
        (2, "start", "tool_use"),
        (2, "delta", "input_json_delta"),
        (2, "delta", "input_json_delta"),
        (2, "stop", None),
        (3, "start", "tool_use"),
        (3, "delta", "input_json_delta"),
        (3, "stop", None),
    ]
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 9


def read_events(text: str) -> list[dict[str, Any]]:
    """The data of events, each of which must be named like its type; there is no [DONE]."""
    events = []
    for frame in text.removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def told(event: dict[str, Any]) -> str | None:
    return (event.get("content_block") or event.get("delta") or {}).get("type")


CUT = finish("length", completion=50)
DIALOGUES: dict[str, tuple[list[Any], list[str], str]] = {
    "text": ([reply("Hello"), finish()], ["text"], "end_turn"),
    "nothing": ([finish(completion=0)], [], "end_turn"),
    "only thinking, cut": ([reply(reasoning_output="Let me"), CUT], ["thinking"], "max_tokens"),
    "the context ended": ([reply("Hel"), finish("length", completion=49)], ["text"], "model_context_window_exceeded"),
    "a forced call": ([*calling(0, "{}"), finish("stop")], ["tool_use"], "tool_use"),
    "a call between texts": (
        [reply("I ask"), *calling(0, "{}"), finish("tool_calls", text="")],
        ["text", "tool_use"],
        "tool_use",
    ),
    "a call, cut": ([*calling(0, '{"city": "Bos'), CUT], ["tool_use"], "max_tokens"),
    "a call without arguments": ([*calling(0), finish("tool_calls")], ["tool_use"], "tool_use"),
    "arguments that are no object": ([*calling(0, "[1, 2"), finish("tool_calls")], ["tool_use"], "tool_use"),
    "an integer beyond JSON": (
        [*calling(0, '{"n": 1' + "0" * 40 + "}"), finish("tool_calls")],
        ["tool_use"],
        "tool_use",
    ),
    "a stop sequence": ([reply("one "), finish(stop_string="two")], ["text"], "stop_sequence"),
}


@pytest.mark.parametrize("dialogue", DIALOGUES)
async def test_answers_have_the_clients_types(served: Serving, streamed: bool, dialogue: str) -> None:
    replies, kinds, reason = DIALOGUES[dialogue]
    served.triton.script = play(*replies)
    response = await post(served, tools=[TOOL], stream=streamed)
    assert response.status_code == 200, response.text
    if not streamed:
        message = strict(Message, response.json())
        assert [block.type for block in message.content] == kinds
    else:
        events = read_events(response.text)
        for event in events:
            if event["type"] != "ping":
                strict(RawMessageStreamEvent, event)
        starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
        assert starts == kinds
        message = strict(RawMessageStreamEvent, events[-2]).delta
    assert message.stop_reason == reason
    assert message.stop_sequence == ("two" if reason == "stop_sequence" else None)


def strict(kind: Any, value: Any) -> Any:
    """Check a value against a type of the client: no wrong type, no unknown field."""
    # The client's types give a missing field a default, so that only real ones are required.
    typed = TypeAdapter(kind).validate_python(value, strict=True)
    assert not set(extras(typed)), value
    return typed


def extras(value: Any) -> set[str]:
    if isinstance(value, BaseModel):
        below = [extras(getattr(value, name)) for name in type(value).model_fields]
        return set(value.model_extra or {}).union(*below)
    return set().union(*map(extras, value)) if isinstance(value, list) else set()


async def test_arguments_that_were_cut_are_kept_up_to_the_cut(
    served: Serving, client: anthropic.AsyncAnthropic
) -> None:
    served.triton.script = play(*calling(0, '{"city": "Bos'), CUT)
    answer = await ask(client, False, tools=[TOOL])
    assert answer.content[0].input == {"city": "Bos"}


async def test_a_rest_of_a_call_and_the_text_after_it_in_one_delta(
    served: Serving, client: anthropic.AsyncAnthropic
) -> None:
    rest = [{"index": 0, "function": {"arguments": "}"}}]
    served.triton.script = play(*calling(0, "{"), reply("Done", tool_calls=rest), finish("tool_calls"))
    answer = await ask(client, True, tools=[TOOL])
    assert [block.type for block in answer.content] == ["tool_use", "text"]
    assert answer.content[0].input == {}


@pytest.mark.parametrize("between", [[reply("Hm.")], [reply(reasoning_output="Hm.")], calling(1)])
async def test_arguments_of_a_call_that_is_not_open_are_an_error(served: Serving, between: list[Any]) -> None:
    late = reply(tool_calls=[{"index": 0, "function": {"arguments": '{"city": "Rome"}'}}])
    served.triton.script = play(*calling(0), *between, late, finish("tool_calls"))
    events = read_events((await post(served, stream=True, tools=[TOOL])).text)
    assert events[-1]["type"] == "error" and events[-1]["error"]["type"] == "api_error"
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert all(block["id"] and block["name"] for block in blocks if block["type"] == "tool_use")


async def test_stop_sequences_and_the_parameters_of_triton(served: Serving) -> None:
    await prompt(served, stop_sequences=["two", "\n\nHuman:"])
    call = served.triton.calls[0]
    assert json.loads(call.parameters["stop"]) == ["two", "\n\nHuman:"]
    # The client's maximum may be larger than the context.
    assert call.parameters["cap_max_tokens"] is True and call.inputs["max_tokens"] == [50]


async def test_many_stop_sequences(served: Serving) -> None:
    given = [f"\n{number}." for number in range(100)]
    await prompt(served, stop_sequences=given)
    assert json.loads(served.triton.calls[0].parameters["stop"]) == given


async def test_thinking_without_its_text(served: Serving, client: anthropic.AsyncAnthropic, streamed: bool) -> None:
    served.triton.script = play(reply(reasoning_output="secret"), reply("So"), finish())
    thinking = {"type": "adaptive", "display": "omitted"}
    answer = await ask(client, streamed, thinking=thinking)
    assert [(block.type, getattr(block, "thinking", None)) for block in answer.content] == [
        ("thinking", ""),
        ("text", None),
    ]
    assert answer.content[0].signature


async def test_the_synchronous_client(served: Serving) -> None:
    def run() -> list[str]:
        client = anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=WAIT)
        whole = client.messages.create(model="model", max_tokens=9, messages=HI).content[0].text
        with client.messages.stream(model="model", max_tokens=9, messages=HI) as stream:
            return [whole, "".join(stream.text_stream)]

    assert await asyncio.to_thread(run) == ["Hello world"] * 2


async def test_a_dialogue_with_tools(served: Serving) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Look it up.", "signature": "EqQBanything"},
                {"type": "redacted_thinking", "data": "abc"},
                {"type": "text", "text": "Let me see.", "citations": None},
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "c2", "name": "get_weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "59.0"}, picture]},
                {"type": "tool_result", "tool_use_id": "c2", "content": "no such city", "is_error": True},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    chat = await prompt(served, messages=messages, tools=[TOOL])
    user, answer, first, second, last = chat["messages"]
    assert user == {"role": "user", "content": [{"type": "text", "text": "Weather?"}]}
    assert answer["reasoning_content"] == "Look it up."
    assert answer["content"] == [{"type": "text", "text": "Let me see."}]
    assert [(call["id"], call["function"]["arguments"]) for call in answer["tool_calls"]] == [
        ("c1", {"city": "Rome"}),
        ("c2", {}),
    ]
    assert first["tool_call_id"] == "c1" and [part["type"] for part in first["content"]] == ["text", "image_url"]
    assert [part["text"] for part in second["content"]] == ["Error:", "no such city"]
    assert last["content"] == [{"type": "text", "text": "And?"}]
    assert served.triton.calls[0].inputs["images"] == [base64.b64decode(PNG)]


async def test_results_come_before_the_users_words(served: Serving) -> None:
    blocks = [{"type": "text", "text": "And?"}, {"type": "tool_result", "tool_use_id": "c1"}]
    call = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
    messages = await sent(served, HI[0], {"role": "assistant", "content": [call]}, {"role": "user", "content": blocks})
    assert [(one["role"], one["content"]) for one in messages] == [
        ("user", "Hi"),
        ("assistant", ""),
        ("tool", ""),
        ("user", "And?"),
    ]


async def test_successive_messages_of_one_role_are_one_turn(served: Serving) -> None:
    said = {"role": "assistant", "content": "Hello"}
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": ""}]}
    messages = await sent(served, *HI, *HI, thought, said, {"role": "assistant", "content": []}, *HI)
    assert [(one["role"], one["content"]) for one in messages] == [
        ("user", "Hi\nHi"),
        ("assistant", "Hello"),
        ("user", "Hi"),
    ]
    assert messages[1]["reasoning_content"] == "Hm"


async def test_documents_and_search_results_are_text(served: Serving) -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "Once upon a time"}
    inner = {"type": "content", "content": [{"type": "text", "text": "there was"}]}
    content = [
        {"type": "document", "source": plain, "title": "A tale", "context": "for children"},
        {"type": "document", "source": inner, "citations": {"enabled": False}},
        {"type": "search_result", "source": "https://x", "title": "X", "content": [{"type": "text", "text": "a king"}]},
    ]
    (message,) = await sent(served, {"role": "user", "content": content})
    assert message["content"] == "A tale\nfor children\nOnce upon a time\nthere was\nX\nhttps://x\na king"


async def test_pictures_by_address(served: Serving) -> None:
    url = {"type": "url", "url": f"data:image/png;base64,{PNG}"}
    await prompt(served, messages=[{"role": "user", "content": [{"type": "image", "source": url}]}])
    assert served.triton.calls[0].inputs["images"] == [base64.b64decode(PNG)]


async def test_a_last_message_of_the_assistant_is_continued(served: Serving) -> None:
    chat = await prompt(served, messages=[*HI, {"role": "assistant", "content": "The answer is ("}])
    assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)
    call = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
    chat = await prompt(served, messages=[*HI, {"role": "assistant", "content": [call]}])
    assert "continue_final_message" not in chat


async def test_system_messages(served: Serving) -> None:
    system = [claude_code.billing(1), {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    messages = await sent(served, *HI, {"role": "system", "content": "C"}, *HI, system=system)
    assert [(one["role"], one["content"]) for one in messages] == [
        ("system", "A\nB"),
        ("user", "Hi"),
        ("system", "C"),
        ("user", "Hi"),
    ]
    (first, _) = await sent(served, *HI, system="x-anthropic-billing-header: cch=1;\nBe short.")
    assert first["content"] == "Be short."
    (only,) = await sent(served, *HI, system=[claude_code.billing(2)])
    assert only["role"] == "user"


async def test_a_system_message_without_content_is_none(served: Serving) -> None:
    assert await sent(served, *HI, {"role": "system"}) == await sent(served, *HI)


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "get_weather"}, "function:get_weather", None),
    ],
)
async def test_tool_choice(served: Serving, choice: dict[str, Any], expected: str, parallel: bool | None) -> None:
    chat = await prompt(served, tools=[TOOL], tool_choice=choice)
    assert served.triton.calls[0].parameters.get("tool_choice", "auto") == expected
    assert chat.get("parallel_tool_calls") is parallel


async def test_one_call_at_a_time(served: Serving, client: anthropic.AsyncAnthropic, streamed: bool) -> None:
    served.triton.script = everything()
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    answer = await ask(client, streamed, tools=[TOOL], tool_choice=choice)
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]


async def test_fields_of_a_tool(served: Serving) -> None:
    tool = TOOL | {"type": "custom", "description": "It tells.", "strict": True, "input_examples": [{"city": "Rome"}]}
    unused = {"cache_control": {"type": "ephemeral"}, "defer_loading": True, "eager_input_streaming": True}
    chat = await prompt(served, tools=[tool | unused | {"allowed_callers": ["direct"]}])
    assert chat["tools"][0]["function"] == {
        "name": "get_weather",
        "description": "It tells.",
        "strict": True,
        "parameters": TOOL["input_schema"] | {"examples": [{"city": "Rome"}]},
    }


@pytest.mark.parametrize(
    ("thinking", "enabled", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 48}, True, 48),
        ({"type": "enabled", "budget_tokens": 49}, True, None),  # of 50
        ({"type": "disabled"}, False, None),
        ({"type": "adaptive", "display": "summarized"}, None, None),
    ],
)
async def test_thinking(served: Serving, thinking: dict[str, Any], enabled: bool | None, budget: int | None) -> None:
    chat = await prompt(served, thinking=thinking)
    assert chat.get("enable_thinking") is enabled
    assert served.triton.calls[0].parameters.get("thinking_token_budget") == budget


async def test_structured_output_and_effort(served: Serving, client: anthropic.AsyncAnthropic) -> None:
    class City(BaseModel):
        name: str

    served.triton.script = answer_of('{"name": "Rome"}')
    answer = await client.messages.parse(
        model="model", max_tokens=50, messages=HI, output_format=City, output_config={"effort": "high"}
    )
    assert answer.parsed_output == City(name="Rome")
    chat = served.triton.calls[0].messages
    assert chat["response_format"]["json_schema"]["schema"]["properties"]["name"]["type"] == "string"
    assert chat["reasoning_effort"] == "high"


async def test_count_tokens(served: Serving, client: anthropic.AsyncAnthropic) -> None:
    fields: dict[str, Any] = {"system": "Be short.", "tools": [TOOL], "thinking": {"type": "disabled"}}
    counted = await client.messages.count_tokens(model="model", messages=HI, **fields)
    (call,) = served.triton.calls
    # The fake has an id for each character of the chat, and one before them.
    assert call.model == "preprocessing" and counted.input_tokens == 1 + len(call.inputs["messages"][0])
    served.triton.calls.clear()
    assert await prompt(served, **fields) == call.messages


def block(kind: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind, **fields}]}]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [*HI, {"role": "system", "content": "x", "clear_at": "next_user_message"}]},
            "messages[1].clear_at",
        ),
        (block("text", text=5), "messages[0].content[0].text"),
        (block("server_tool_use", id="x"), "messages[0].content[0].type"),
        (block("container_upload"), "'container_upload'"),
        (block("tool_use", id="x", name="f", input={}), "messages[0].content[0].type"),
        (block("image", source={"type": "file", "file_id": "f"}), "messages[0].content[0].source.type"),
        (block("image", source={"type": "base64", "media_type": "image/tiff", "data": ""}), "source.media_type"),
        (block("image", source={"type": "url"}), "messages[0].content[0].source.url"),
        (
            block("image", source={"type": "url", "url": "x"}, transformations={"oversized_image": "error"}),
            "messages[0].content[0].transformations.oversized_image",
        ),
        (block("document", source={"type": "base64", "data": ""}), "messages[0].content[0].source.type"),
        (block("document", source={"type": "text", "data": ""}, citations={"enabled": True}), "citations"),
        (block("tool_result", tool_use_id=5), "messages[0].content[0].tool_use_id"),
        (block("tool_result", tool_use_id="x", is_error="yes"), "messages[0].content[0].is_error"),
        (block("tool_result", content=[{"type": "browser_state"}]), "messages[0].content[0].content[0].type"),
        (
            {"messages": [*HI, {"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}]},
            "messages[1].content[0].name",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": "{}"}]}]},
            "messages[0].content[0].input",
        ),
        ({"system": 5}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": ["a"] * 1025}, "stop_sequences"),
        ({"stop_sequences": ["a" * 4096] * 17}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL | {"allowed_callers": ["code_execution_20260120"]}]}, "tools[0].allowed_callers"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "required"}}, "tool_choice.type"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "display": "updates"}}, "thinking.display"),
        ({"output_config": {"effort": "colossal"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format.type"),
        ({"output_config": {"task_budget": {"type": "tokens", "total": 5}}}, "output_config.task_budget"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits[0]"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"response_format": {"type": "json_object"}}, "output_config.format"),
        ({"n": 2}, "n"),
        ({"temperature": 5}, "temperature"),
    ],
)
async def test_refused(served: Serving, fields: dict[str, Any], named: str) -> None:
    # What only concerns the answer is not looked at where tokens are counted.
    of_answer = {"max_tokens", "stop_sequences", "temperature", "thinking.budget_tokens"} & {*fields, named}
    for path in (PATH,) if of_answer else (PATH, f"{PATH}/count_tokens"):
        response = await post(served, path, **fields)
        assert response.status_code == 400, response.text
        error = response.json()
        assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
        assert named in error["error"]["message"]
        assert error["request_id"] == response.headers["request-id"]


async def test_errors_have_the_clients_classes(served: Serving, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await ask(client, False, model="gpt")
    assert missing.value.request_id and missing.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.RequestTooLargeError) as large:
        await ask(client, False, system="x" * 1_000_001)
    assert large.value.body["error"]["type"] == "request_too_large"
    for method, path, status, kind in (
        ("GET", PATH, 405, "invalid_request_error"),
        ("POST", f"{PATH}/batches", 404, "not_found_error"),
        ("POST", f"{PATH}s", 404, None),
    ):
        response = await served.http.request(method, path)
        assert response.status_code == status
        assert response.json().get("type") == (kind and "error")
        assert response.json()["error"]["type"] == (kind or "invalid_request_error")


@pytest.mark.parametrize(
    ("encoded", "status", "kind"),
    [
        (REFUSAL, 400, "invalid_request_error"),
        ("unknown model", 503, "overloaded_error"),
        ("the engine died", 500, "api_error"),
    ],
)
async def test_errors_of_triton(served: Serving, streamed: bool, encoded: str, status: int, kind: str) -> None:
    served.triton.script = play(failure(encoded))
    response = await post(served, stream=streamed)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)


async def test_a_stream_that_fails(served: Serving, client: anthropic.AsyncAnthropic) -> None:
    served.triton.script = play(reply("Hel"), failure("the engine died"))
    events = read_events((await post(served, stream=True)).text)
    assert events[-1]["type"] == "error" and events[-1]["error"]["type"] == "api_error"
    served.triton.script = play(reply("Hel"), failure("the engine died"))
    with pytest.raises(anthropic.APIError, match="The engine failed"):
        await ask(client, True)


async def test_keys() -> None:
    async with serving(api_key=("secret",)) as served:
        for headers, status in (
            ({"x-api-key": "secret"}, 200),
            ({"authorization": "Bearer secret"}, 200),
            ({"authorization": "Bearer secret", "x-api-key": "other"}, 200),
            ({"authorization": "Bearer other", "x-api-key": "secret"}, 401),
            ({"x-api-key": "other"}, 401),
            ({}, 401),
        ):
            for path in (PATH, "/v1/chat/completions"):
                body = {"max_tokens": 5, "messages": HI}
                response = await served.http.post(path, json=body, headers=headers)
                assert response.status_code == status, headers
                if status == 401:
                    assert response.json()["error"]["type"] == "authentication_error"
                    assert ("request_id" in response.json()) == (path == PATH)
        twice = [("x-api-key", "secret"), ("x-api-key", "secret")]
        assert (await served.http.post(PATH, json={"max_tokens": 5, "messages": HI}, headers=twice)).status_code == 401


async def test_a_key_of_another_model(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice {hashlib.sha256(b'secret').hexdigest()} models=other\n")
    async with serving(api_keys_file=str(file)) as served:
        response = await served.http.post(PATH, json={"max_tokens": 5, "messages": HI}, headers={"x-api-key": "secret"})
        assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")


async def test_claude_codes_requests(served: Serving) -> None:
    """Nothing that marks the cache, or changes with each request, is in the prompt: it grows only at its end."""
    prompts = []
    for number in range(1, 6):
        body = claude_code.request(number)
        response = await served.http.post(claude_code.PATH, json=body, headers=claude_code.HEADERS)
        assert response.status_code == 200, response.text
        assert read_events(response.text)[-1]["type"] == "message_stop"
        call = served.triton.calls[-1]
        assert call.messages["enable_thinking"] is True and "thinking_token_budget" not in call.parameters
        text = json.dumps(call.messages["messages"])
        assert not any(word in text for word in ("cache_control", "billing", "cch=", claude_code.USER_ID))
        assert call.messages["tools"] == served.triton.calls[0].messages["tools"]
        prompts.append(call.messages["messages"])
    for shorter, longer in pairwise(prompts):
        assert longer[: len(shorter)] == shorter
    counted = {name: claude_code.request(3)[name] for name in ("model", "messages", "system", "tools", "thinking")}
    path = "/v1/messages/count_tokens?beta=true"
    response = await served.http.post(path, json=counted, headers=claude_code.HEADERS)
    assert response.json().keys() == {"input_tokens"}


async def test_every_field_of_a_chat_is_taken_or_refused() -> None:
    given_otherwise = {"tools", "tool_choice", "thinking", "messages"}
    taken = {*SAME, *given_otherwise} | (set(ChatBody.model_fields) & {*IGNORED_IN_MESSAGES})
    assert set(ChatBody.model_fields) == taken | (set(REFUSED_IN_MESSAGES) & set(ChatBody.model_fields))
    assert {name.partition(".")[0] for name in RENAMED.values()} <= {*CONVERTED}
    assert set(REFUSED_IN_CHAT) <= set(REFUSED_IN_MESSAGES)


@pytest.mark.parametrize("thinking", ["enabled", "disabled"])
async def test_prompts_grow_only_at_their_end(served: Serving, qwen3_tokenizer_dir: Path, thinking: str) -> None:
    """In the ids that the engine gets, too, each request of Claude Code begins with the one before."""
    checkpoint = Checkpoint(Path(), "qwen3", ("Qwen3ForCausalLM",), 151936, 40960, (151645,), 151643)
    builder = PromptBuilder(checkpoint, ChatTokenizer.load(qwen3_tokenizer_dir), find_styler(checkpoint))
    wanted = {"type": thinking} | ({"budget_tokens": 31999} if thinking == "enabled" else {})
    prompts = []
    for number in range(1, 6):
        body = claude_code.request(number, thinking=wanted, output_config={}, stream=False)
        assert (await served.http.post(claude_code.PATH, json=body)).status_code == 200
        given = served.triton.calls[-1].inputs["messages"][0].decode()
        prompts.append(builder.build(PromptRequest(messages=given)).input_ids)
    text = builder.tokenizer.backend.decode(prompts[-1], skip_special_tokens=False)
    assert text.count("<tool_response>") == 4 and "I should read file 4." in text
    for shorter, longer in pairwise(prompts):
        pairs = enumerate(zip(shorter, longer, strict=False))
        common = next((at for at, (one, other) in pairs if one != other), len(shorter))
        # But for what the template writes to begin an answer.
        assert len(shorter) - common <= 8 and len(longer) > len(shorter)
