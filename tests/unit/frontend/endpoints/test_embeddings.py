# SPDX-License-Identifier: Apache-2.0
"""Embeddings, rerank and score of the frontend, in front of a fake Triton with an embedding model beside a chat model."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator

import jsonschema
import pytest
import pytest_asyncio

from common.errors import RequestError
from frontend.endpoints.openapi import document
from frontend.protocol.embeddings import EmbeddingBody
from tests.fakes.fake_triton import Served
from tests.fakes.frontend_server import HELLO, WAIT, Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/embeddings"
DOCUMENT = document()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both() -> AsyncIterator[Serving]:
    async with serving(request_timeout=5.0) as one:
        one.triton.served = {
            "chat": Served("chat.", {"names": ["chat"]}),
            "embed": Served("", {"kind": "embedding", "names": ["embed", "alias"]}),
        }
        async with asyncio.timeout(WAIT):
            while (await one.http.get("/v1/models/embed")).status_code != 200:
                await asyncio.sleep(0.05)
        yield one


@pytest.fixture(autouse=True)
def fresh(both: Serving) -> None:
    both.reset()
    both.triton.pooling_error = both.triton.pooling_gate = both.triton.lost = None
    both.triton.cancelled.clear()


def check_schema(body: object, name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.validate(body, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("sent", "rows"),
    [
        ("abc", [[3, 97]]),
        (["b", "abc", "b"], [[1, 98], [3, 97], [1, 98]]),
        ([97, 98], [[2, 97]]),
        ([[97, 98], [99]], [[2, 97], [1, 99]]),
    ],
)
async def test_every_form_of_the_input(both: Serving, sent: object, rows: list[list[float]]) -> None:
    response = await both.http.post(PATH, json={"model": "alias", "input": sent, "user": "someone"})
    assert response.status_code == 200, response.text
    body = response.json()
    check_schema(body, "Embeddings")
    assert [one["embedding"] for one in body["data"]] == rows
    assert [one["index"] for one in body["data"]] == list(range(len(rows)))
    assert body["model"] == "alias"
    assert body["usage"] == {"prompt_tokens": 3 * len(rows), "total_tokens": 3 * len(rows)}
    assert len(both.triton.calls) == 1, "one request to Triton for all inputs"


async def test_base64_has_the_same_numbers(both: Serving) -> None:
    body = {"model": "embed", "input": ["abc", "d"], "encoding_format": "base64"}
    data = (await both.http.post(PATH, json=body)).json()["data"]
    assert [struct.unpack("<2f", base64.b64decode(one["embedding"])) for one in data] == [(3, 97), (1, 100)]


async def test_the_official_client(both: Serving) -> None:
    made = await both.openai.embeddings.create(model="embed", input=["abc", "d"])
    assert [one.embedding for one in made.data] == [[3, 97], [1, 100]]
    assert made.usage.total_tokens == 6


async def test_options_reach_the_model_and_null_is_absent(both: Serving) -> None:
    body = {"model": "embed", "input": "a", "dimensions": 2, "truncate_prompt_tokens": -1, "encoding_format": None}
    assert (await both.http.post(PATH, json=body)).status_code == 200
    assert both.triton.calls[0].inputs | {} == {
        "text_input": [b"a"],
        "dimensions": [2],
        "truncate_prompt_tokens": [-1],
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [2**31]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "a", "encoding_format": "bytes"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": "2"}, "dimensions"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"input": "a", "embed_dtype": "float16"}, "embed_dtype"),
        ({"input": "a", "model": "chat"}, "model"),
    ],
)
async def test_a_wrong_body_is_the_clients_fault(both: Serving, fields: dict[str, object], param: str) -> None:
    response = await both.http.post(PATH, json={"model": "embed"} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert not both.triton.calls


async def test_a_chat_needs_a_chat_model(both: Serving) -> None:
    response = await both.http.post("/v1/chat/completions", json=HELLO | {"model": "embed"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("param", "named"), [("text_input", "input"), ("input_ids", "input"), ("dimensions", "dimensions")]
)
async def test_an_error_of_the_model_names_the_field(both: Serving, param: str, named: str) -> None:
    both.triton.pooling_error = RequestError("too long", kind="context_length", param=param).encode()
    response = await both.http.post(PATH, json={"model": "embed", "input": "a"})
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "too long",
        "type": "invalid_request_error",
        "param": named,
        "code": "context_length_exceeded",
    }


async def test_a_failure_of_the_model_is_ours(both: Serving) -> None:
    both.triton.pooling_error = "CUDA error"
    response = await both.http.post(PATH, json={"model": "embed", "input": "a"})
    assert response.status_code == 500
    assert "CUDA" not in response.text


async def test_what_the_engine_cancels_is_not_the_clients_fault(both: Serving) -> None:
    both.triton.pooling_error = RequestError("the request was cancelled", kind="cancelled").encode()
    answer = await both.http.post("/v1/embeddings", json={"model": "embed", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_a_client_that_leaves_cancels_its_request(both: Serving) -> None:
    both.triton.pooling_gate = asyncio.Event()
    task = asyncio.create_task(both.http.post(PATH, json={"model": "embed", "input": "a"}))
    async with asyncio.timeout(WAIT):
        while not both.triton.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        while not both.triton.cancelled:
            await asyncio.sleep(0.01)
    assert both.triton.cancelled == [both.triton.calls[0].id]


async def test_the_deadline_cancels(both: Serving) -> None:
    both.triton.pooling_gate = asyncio.Event()
    headers = {"X-Request-Timeout": "0.2"}
    response = await both.http.post(PATH, json={"model": "embed", "input": "a"}, headers=headers)
    assert response.status_code == 504
    async with asyncio.timeout(WAIT):
        while not both.triton.cancelled:
            await asyncio.sleep(0.01)


async def test_requests_inside_a_model_that_dies_fail(both: Serving) -> None:
    both.triton.pooling_gate = asyncio.Event()
    waiting = asyncio.create_task(both.http.post(PATH, json={"model": "embed", "input": "a"}))
    async with asyncio.timeout(WAIT):
        while not both.triton.calls:
            await asyncio.sleep(0.01)
        # Found by the probe that a request without an answer causes.
        both.triton.lost = "embed"
        assert (await waiting).status_code == 503
        assert (await both.http.post(PATH, json={"model": "embed", "input": "a"})).status_code == 503
        both.triton.lost = both.triton.pooling_gate = None
        while (await both.http.post(PATH, json={"model": "embed", "input": "a"})).status_code != 200:
            await asyncio.sleep(0.05)


async def test_metrics_have_the_requests_and_tokens(both: Serving) -> None:
    await both.http.post(PATH, json={"model": "embed", "input": ["a", "b"]})
    text = (await both.http.get("/metrics")).text
    assert 'triton_chat_requests_total{endpoint="embeddings",model="embed",outcome="ok"}' in text
    (line,) = [
        one
        for one in text.splitlines()
        if one.startswith('triton_chat_prompt_tokens_total{endpoint="embeddings",model="embed"}')
    ]
    assert float(line.split()[-1]) >= 6


async def test_rerank_sorts_the_documents(both: Serving) -> None:
    documents = ["bb", {"text": "dddd"}, "a", "cccc"]
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        response = await both.http.post(path, json={"model": "embed", "query": "q", "documents": documents})
        assert response.status_code == 200, response.text
        body = response.json()
        check_schema(body, "Ranking")
        assert [one["index"] for one in body["results"]] == [1, 3, 0, 2]
        assert body["results"][0] == {"index": 1, "document": {"text": "dddd"}, "relevance_score": 4.0}
    asked = {"model": "embed", "query": "q", "documents": documents, "top_n": 2, "return_documents": False}
    results = (await both.http.post("/v1/rerank", json=asked)).json()["results"]
    assert results == [{"index": 1, "relevance_score": 4.0}, {"index": 3, "relevance_score": 4.0}]
    assert both.triton.calls[-1].inputs == {
        "text_input": [b"q"],
        "text_pair": [b"bb", b"dddd", b"a", b"cccc"],
    }


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")])
async def test_score_keeps_the_order(both: Serving, names: tuple[str, str]) -> None:
    for first, second in (("q", ["bb", "a"]), (["q", "r"], ["bb", "a"]), ("q", "bb")):
        body = {"model": "embed", names[0]: first, names[1]: second}
        response = await both.http.post("/v1/score", json=body)
        assert response.status_code == 200, response.text
        check_schema(response.json(), "Scores")
        assert [one["score"] for one in response.json()["data"]] == [2.0, 1.0][: 1 if second == "bb" else 2]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/rerank", {"documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "q"}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a", ""]}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": [{"title": "a"}]}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "max_tokens_per_doc": 5}, "max_tokens_per_doc"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ("/v1/score", {"text_1": "a"}, "text_2"),
        ("/v1/score", {"text_1": "a", "text_2": []}, "text_2"),
    ],
)
async def test_wrong_pairs_are_the_clients_fault(
    both: Serving, path: str, fields: dict[str, object], param: str
) -> None:
    response = await both.http.post(path, json={"model": "embed"} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_many_ids_are_read() -> None:
    body = EmbeddingBody.model_validate({"input": [list(range(512))] * 2048})
    assert len(body.input) == 2048
