# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document compared with the server: schemathesis, and real answers validated by its schemas."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jsonschema
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from frontend.app import create_app
from frontend.endpoints.openapi import document
from frontend.settings import Settings
from tests.fakes.fake_triton import Call, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving
from tests.support import claude_code

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT = document()
OPERATIONS = [
    (method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item if method in ("get", "post")
]
# Two modes of each operation; the bodies are large, so generating them takes most of the time.
EXAMPLES = 25
MESSAGES = "/v1/messages"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Serving]:
    async with serving(max_body_bytes=1_000_000) as one:
        yield one


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


async def test_every_schema_is_valid_and_every_reference_resolves() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for target in references(schema):
            assert target.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"], name
    for target in references(DOCUMENT["paths"]):
        assert target.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


async def test_the_document_has_exactly_the_routes_of_the_application() -> None:
    routes: set[tuple[str, str]] = set()
    for route in create_app(Settings()).routes:
        path = route.path.replace("{name:path}", "{name}")
        routes |= {(method, path) for method in route.methods if method in ("GET", "POST")}
    assert routes == set(OPERATIONS)


async def test_the_document_is_served(served: Serving) -> None:
    response = await served.http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
async def test_any_request_gets_a_documented_answer(
    served: Serving, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]
    if mode is GenerationMode.NEGATIVE and method == "GET":
        pytest.skip("no invalid request exists")
    served.reset()

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(base_url=served.url, checks=CHECKS, timeout=WAIT)

    # schemathesis sends its requests synchronously.
    await asyncio.to_thread(check)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ENTRY = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


async def rich(call: Call) -> Any:
    """An answer with every field."""
    yield reply(reasoning_output="hm")
    yield reply("text", logprobs=[ENTRY])
    yield reply(tool_calls=[CALL])
    yield finish(num_cached_tokens=2)


@pytest.mark.parametrize(
    ("path", "fields", "answer", "chunk"),
    [
        (CHAT, HELLO | {"logprobs": True, "tools": [TOOL]}, "ChatCompletion", "ChatCompletionChunk"),
        ("/v1/completions", {"prompt": "x", "logprobs": 1}, "Completion", "Completion"),
        ("/v1/responses", {"input": "x"}, "Response", None),
        (MESSAGES, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}, "AnswerMessage", None),
    ],
)
async def test_answers_are_as_documented(
    served: Serving, path: str, fields: dict[str, Any], answer: str, chunk: str | None
) -> None:
    served.reset()
    served.triton.script = rich
    response = await served.http.post(path, json=fields)
    assert response.status_code == 200, response.text
    validator(answer).validate(response.json())
    if chunk is None:
        return
    streamed = fields | {"stream": True, "stream_options": {"include_usage": True}}
    events = (await served.http.post(path, json=streamed)).text
    data = [line.removeprefix("data: ") for line in events.split("\n\n") if line]
    assert data.pop() == "[DONE]" and len(data) >= 3
    for event in data:
        validator(chunk).validate(httpx.Response(200, text=event).json())


@pytest.mark.parametrize(
    ("path", "fields", "answer", "chunk"),
    [
        (CHAT, HELLO, "ChatCompletion", "ChatCompletionChunk"),
        ("/v1/completions", {"prompt": "x"}, "Completion", "Completion"),
        ("/v1/responses", {"input": "x"}, "Response", None),
    ],
)
async def test_times_are_as_documented(
    served: Serving, path: str, fields: dict[str, Any], answer: str, chunk: str | None
) -> None:
    served.reset()
    headers = {"X-Request-Metrics": "true"}
    body = (await served.http.post(path, json=fields, headers=headers)).json()
    schemas = DOCUMENT["components"]["schemas"]
    assert body["metrics"].keys() == schemas["RequestMetrics"]["properties"].keys()
    for name in (answer, chunk) if chunk else (answer,):
        assert schemas[name]["properties"]["metrics"] == {"$ref": "#/components/schemas/RequestMetrics"}
    validator(answer).validate(body)
    with pytest.raises(jsonschema.ValidationError):
        validator(answer).validate(body | {"metrics": {}})


async def test_bodies_that_the_document_allows_are_accepted(served: Serving) -> None:
    """Examples of the parts of the document that are written by hand, and could differ from the validation."""
    served.reset()
    chats = [
        {"messages": [{"role": role, "content": "x"}]} for role in ("system", "developer", "user", "assistant", "tool")
    ]
    chats += [
        HELLO | {"stop": "x"},
        HELLO | {"stop": ["x", "y"]},
        HELLO | {"seed": 2**64 - 1},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "refusal", "refusal": "x"}]}
            ]
        },
    ]
    completions = [{"prompt": prompt} for prompt in ("x", [1], ["x", [1]], [[0, 2**31 - 1]])]
    responses = [
        {"input": "x", "tool_choice": "auto", "text": {"format": {"type": "json_object"}}},
        {"input": [{"role": "user", "content": "x"}], "reasoning": {"effort": "low"}, "max_output_tokens": 5},
    ]
    picture = {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,iVBORw0KGgo="}}
    blocks = {
        "user": [
            {"type": "text", "text": "x"},
            picture,
            {"type": "document", "source": {"type": "text", "data": "x"}, "title": "x"},
            {"type": "search_result", "title": "x", "source": "x", "content": [{"type": "text", "text": "x"}]},
            {"type": "tool_result", "tool_use_id": "x", "content": [picture], "is_error": True},
        ],
        "assistant": [
            {"type": "thinking", "thinking": "x", "signature": "x"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "tool_use", "id": "x", "name": "f", "input": {"a": 1}},
        ],
        "system": [{"type": "text", "text": "x"}],
    }
    messages = [
        {"messages": [{"role": role, "content": content} for role, content in blocks.items()], "max_tokens": 5},
        claude_code.request(3),
    ]
    counted = [{name: value for name, value in body.items() if name != "max_tokens"} for body in messages]
    for path, name, bodies in [
        (CHAT, "ChatBody", chats),
        ("/v1/completions", "CompletionBody", completions),
        ("/v1/responses", "ResponseBody", responses),
        (MESSAGES, "MessageBody", messages),
        (f"{MESSAGES}/count_tokens", "CountTokensBody", counted),
    ]:
        for body in bodies:
            validator(name).validate(body)
            response = await served.http.post(path, json=body)
            assert response.status_code == 200, (body, response.text)
