# SPDX-License-Identifier: Apache-2.0
"""Every response and every stream event, checked strictly against the types of the official client.

The client itself builds its objects without validation, so a missing field shows only where someone reads it.
"""

import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, get_args

import pytest
from openai._models import BaseModel
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.fakes.fake_triton import Call, Script, answer_of, failure, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, Serving
from tests.support.response_events import STEPS, check_events

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
# Fields that this server adds to OpenAI's types.
OWN = {"reasoning", "reasoning_content", "store", "root", "parent", "max_model_len", "kind", "aliases", "modalities"}
# OpenAI sends it with the event, and the client's type lacks it; the error object is what makes the client raise.
OF_EVENTS = {"response.function_call_arguments.done": {"name"}, "error": {"error"}}

FUNCTION = {"name": "get_weather", "parameters": {"type": "object", "properties": {}}, "strict": True}
ENTRIES = [
    {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}
    for text in ("I ", "think", "</think>", "It is ", "Boston")
]
ENTRIES[0]["top_logprobs"] = [{"token": "A", "logprob": -1.0, "bytes": [65]}]


def call_deltas(index: int, *pieces: str) -> Iterator[Any]:
    """The replies with one tool call, its arguments in pieces."""
    first = {"index": index, "id": f"call_{index}", "type": "function"}
    yield reply(tool_calls=[first | {"function": {"name": "get_weather", "arguments": ""}}])
    for piece in pieces:
        yield reply(tool_calls=[{"index": index, "function": {"arguments": piece}}])


def play(*replies: Any, entries: bool = False) -> Script:
    """A script of these replies. entries: with log-probabilities where the request asks for them."""

    async def script(call: Call) -> AsyncIterator[Any]:
        logprobs = {"logprobs": ENTRIES} if entries and "return_log_probs" in call.inputs else {}
        if logprobs:
            yield reply("It is Boston", reasoning_output="I think", **logprobs)
        for one in replies:
            yield copy.deepcopy(one)  # the fake writes each request's id into its replies

    return script


COUNTS = {"completion": 9, "reasoning_tokens": 2, "num_cached_tokens": 4}
THOUGHT = (reply(reasoning_output="Let me "), reply(reasoning_output="think"))
DIALOGUES: dict[str, Script] = {
    "text": answer_of("Hello", " world"),
    "nothing": play(finish(completion=0)),
    "reasoning": play(*THOUGHT, reply("So"), finish(**COUNTS)),
    "only reasoning, cut": play(*THOUGHT, finish("length", **COUNTS)),
    "text, cut": play(reply("Hel"), finish("length")),
    "calls": play(
        *THOUGHT, reply("I ask"), *call_deltas(0, '{"a":', " 1}"), *call_deltas(1, "{}"), finish("tool_calls", **COUNTS)
    ),
    "a call between texts": play(reply("I ask"), *call_deltas(0, "{}"), reply("Done"), finish("tool_calls")),
    "calls, the second cut": play(*call_deltas(0, "{}"), *call_deltas(1, '{"a":'), finish("length")),
    "a call without arguments, cut": play(*call_deltas(0), finish("length")),
    "log-probabilities": play(finish(completion=5), entries=True),
}
PLAIN = ("text", "nothing", "text, cut")  # those that a completion can have
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, HELLO),
    "two choices": (CHAT, HELLO | {"n": 2}),
    "chat with log-probabilities": (CHAT, HELLO | {"logprobs": True, "top_logprobs": 1}),
    "chat with tools": (CHAT, HELLO | {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto"}),
    "completion": (COMPLETIONS, {"prompt": "Hi"}),
    "two prompts": (COMPLETIONS, {"prompt": ["Hi", "Ho"], "echo": True}),
    "response": (RESPONSES, {"input": "Hi"}),
    "response with log-probabilities": (
        RESPONSES,
        {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 1},
    ),
    "response with allowed tools": (
        RESPONSES,
        {
            "input": "Hi",
            "tools": [{"type": "function", **FUNCTION}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
        },
    ),
    "response with every field": (
        RESPONSES,
        {
            "input": [{"role": "user", "content": "Hi"}],
            "instructions": "Be short.",
            "max_output_tokens": 9,
            "metadata": {"a": "b"},
            "temperature": 1,
            "top_p": 0.5,
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "a",
            "safety_identifier": "b",
            "truncation": "auto",
            "user": "c",
            "text": {"verbosity": "low"},
            "tools": [{"type": "function", "name": "get_weather"}],
            "tool_choice": {"type": "function", "name": "get_weather"},
        },
    ),
}


CASES = [(form, name) for form in FORMS for name in (PLAIN if FORMS[form][0] == COMPLETIONS else DIALOGUES)]


SETTINGS = {"max_model_len": 4096}


def strict(kind: Any, allowed: set[str] = OWN) -> Callable[[Any], Any]:
    """A check of a JSON value against a type of the client: no wrong type, no missing and no unknown field."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def check(value: Any) -> Any:
        typed = adapter.validate_python(value, strict=True)
        unknown = set(extras(typed)) - allowed - OF_EVENTS.get(str(value.get("type")), set())
        assert not unknown, value
        return typed

    return check


def extras(value: Any) -> Iterator[str]:
    """The names of fields at any depth that the client's types do not have."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or {}
        for name in type(value).model_fields:
            yield from extras(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            yield from extras(one)


def completion_chunk(value: Any) -> None:
    """Check a chunk of a completion, whose type has no null as finish_reason; OpenAI's own chunks have it."""
    ended = [choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in value["choices"]]
    strict(Completion)(value | {"choices": ended})


WHOLE = {CHAT: strict(ChatCompletion), COMPLETIONS: strict(Completion), RESPONSES: strict(Response)}
EVENT = {CHAT: strict(ChatCompletionChunk), COMPLETIONS: completion_chunk, RESPONSES: strict(ResponseStreamEvent)}


@pytest.mark.parametrize(("form", "dialogue"), CASES)
async def test_whole_answers(served: Serving, form: str, dialogue: str) -> None:
    served.triton.script = DIALOGUES[dialogue]
    path, body = FORMS[form]
    response = await served.http.post(path, json=body)
    assert response.status_code == 200, response.text
    WHOLE[path](response.json())


@pytest.mark.parametrize(("form", "dialogue"), CASES)
async def test_events(served: Serving, form: str, dialogue: str) -> None:
    served.triton.script = DIALOGUES[dialogue]
    path, body = FORMS[form]
    options = {"include_usage": True, "continuous_usage_stats": "two" in form}
    events = await stream(served, path, body if path == RESPONSES else body | {"stream_options": options})
    for event in events:
        EVENT[path](event)
    if path == RESPONSES:
        check_events(events)


async def stream(served: Serving, path: str, body: dict[str, Any]) -> list[Any]:
    response = await served.http.post(path, json=body | {"stream": True})
    assert response.status_code == 200, response.text
    data = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


async def test_a_stream_that_fails(served: Serving) -> None:
    served.triton.script = play(reply("Hel"), failure("the engine died"))
    events = await stream(served, RESPONSES, {"input": "Hi"})
    for event in events:
        EVENT[RESPONSES](event)
    check_events(events)
    assert [event["type"] for event in events[-2:]] == ["response.failed", "error"]
    failed = events[-2]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert [item["status"] for item in failed["output"]] == ["incomplete"]
    assert events[-1]["error"]["message"] == events[-1]["message"] == failed["error"]["message"]


# The events of the client's union that no answer of this server has, by the beginnings of their names: those of tools,
# voices and files that are not here, of refusals, which are text, of summaries, which no model writes, of background.
NOT_HERE = (
    *("audio", "code_interpreter_call", "compaction", "shell_call", "file_search_call", "web_search_call", "mcp_"),
    *("image_generation_call", "custom_tool_call", "refusal", "reasoning_summary", "output_text.annotation", "queued"),
)


async def test_every_event_of_the_client_is_sent_or_known_not_to_apply() -> None:
    """A newer client with new events fails here until someone decides."""
    union = get_args(get_args(ResponseStreamEvent)[0])
    kinds = {get_args(event.model_fields["type"].annotation)[0].removeprefix("response.") for event in union}
    sent = {kind for steps in STEPS.values() for kind in steps}
    assert sent <= kinds
    assert {kind for kind in kinds - sent if not kind.startswith(NOT_HERE)} == set()
    assert not [kind for kind in sent if kind.startswith(NOT_HERE)]


# A whole answer comes as one delta, whose text is joined: there the call between texts comes after both.
@pytest.mark.parametrize("dialogue", [name for name in DIALOGUES if name not in ("nothing", "a call between texts")])
async def test_the_client_accumulates_what_a_whole_answer_says(served: Serving, dialogue: str) -> None:
    served.triton.script = DIALOGUES[dialogue]
    fields: Any = {"model": "model", "input": "Hi", "include": ["message.output_text.logprobs"]}
    whole = await served.openai.responses.create(**fields)
    async with served.openai.responses.stream(**fields) as events:
        seen = [event async for event in events]
    streamed = seen[-1].response
    assert streamed.status == whole.status and streamed.incomplete_details == whole.incomplete_details
    assert [told(item) for item in streamed.output] == [told(item) for item in whole.output]
    # What the client itself has put together from the deltas.
    texts = [event.snapshot for event in seen if event.type == "response.output_text.delta"]
    assert not texts or texts[-1] == [item.content[0].text for item in whole.output if item.type == "message"][-1]


def told(item: BaseModel) -> dict[str, Any]:
    """An item without its own id, and without what the client adds to it."""
    values = item.to_dict(exclude_unset=True)
    for part in values.get("content") or ():
        part.pop("parsed", None)
    return {name: value for name, value in values.items() if name not in ("id", "parsed_arguments")}


async def test_models(served: Serving) -> None:
    models = (await served.http.get("/v1/models")).json()
    assert models["object"] == "list"
    for model in models["data"]:
        strict(Model)(model)
