# SPDX-License-Identifier: Apache-2.0
"""A served embedding model, through the whole stack."""

import asyncio
import base64
import subprocess
import sys

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc.aio as grpc
from openai import OpenAI

from scripts.launcher import FREE_PORTS
from scripts.launcher.model_processes import ModelProcesses
from tests.support.agents import run_agents
from tests.support.gpu import memory_share
from tests.support.passing_stack import passing_stack
from tests.support.pooling_checkpoints import TEXTS, embeddings_of, make_qwen3_embedding
from tests.support.scripted import ROOT
from tests.support.waiting import PATIENCE_S, running_requests, wait_until

MODEL = "qwen3-embedding"
# The stack computes in float32, as transformers does; on GPUs attention multiplies with fewer digits.
TOLERANCE = 2e-3 if torch.cuda.is_available() else 1e-5

# Its stack is its own, though of the name of a shared one.
pytestmark = [
    pytest.mark.python_engine("embedding models are served by vLLM"),
    pytest.mark.xdist_group("test_embeddings"),
]


@pytest.fixture(scope="module")
def checkpoint(qwen3_tokenizer_dir, tmp_path_factory):
    return make_qwen3_embedding(qwen3_tokenizer_dir, tmp_path_factory.mktemp("checkpoint") / MODEL)


@pytest.fixture(scope="module")
def expected(checkpoint):
    return embeddings_of(checkpoint, TEXTS, "last").numpy()


@pytest.fixture(scope="module")
def stack(checkpoint, tmp_path_factory):
    """A stack that finds by the checkpoint's files what it is for."""
    logs = str(tmp_path_factory.mktemp("logs"))
    flags = ["--dtype", "float32", "--max-model-len", "64", "--log-dir", logs, *memory_share(0.3), *FREE_PORTS]
    with passing_stack([str(checkpoint), *flags]) as running:
        yield running


@pytest.fixture(scope="module")
def http(stack):
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as plain:
        yield plain


def test_the_official_client_gets_the_embeddings_of_transformers(stack, expected):
    client = OpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)
    made = client.embeddings.create(model=MODEL, input=list(TEXTS))
    assert np.allclose([one.embedding for one in made.data], expected, rtol=0, atol=TOLERANCE)
    short = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=64)
    assert np.allclose(short.data[0].embedding, expected[0, :64] / np.linalg.norm(expected[0, :64]), atol=TOLERANCE)
    assert [one.id for one in client.models.list()] == [MODEL]


def test_base64_has_the_numbers_of_float_and_ids_those_of_their_text(http):
    body = {"model": MODEL, "input": list(TEXTS)}
    floats = http.post("/v1/embeddings", json=body).json()
    texts = http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    for one, other in zip(floats["data"], texts["data"], strict=True):
        sent = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert np.allclose(one["embedding"], sent, rtol=0, atol=TOLERANCE)
    (by_text,) = http.post("/v1/embeddings", json={"input": "Hello, world"}).json()["data"]
    (by_ids,) = http.post("/v1/embeddings", json={"input": [9707, 11, 1879]}).json()["data"]
    assert np.allclose(by_text["embedding"], by_ids["embedding"], rtol=0, atol=TOLERANCE)


def test_refusals_name_the_field(http):
    for body, param, code in (
        ({"input": "word " * 100}, "input", "context_length_exceeded"),
        ({"input": [151936]}, "input", None),
        ({"input": ["a"] * 2049}, "input", None),
        ({"input": "a", "dimensions": 33}, "dimensions", None),
        ({"input": "a", "truncate_prompt_tokens": 65}, "truncate_prompt_tokens", None),
    ):
        response = http.post("/v1/embeddings", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, param, code), error
    cut = http.post("/v1/embeddings", json={"input": "word " * 100, "truncate_prompt_tokens": -1}).json()
    assert cut["usage"] == {"prompt_tokens": 64, "total_tokens": 64}
    chat = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    assert (chat.status_code, chat.json()["error"]["param"]) == (400, "model")


def test_scores_are_cosines(http, expected):
    cosines = expected[1:] @ expected[0]
    scores = http.post("/v1/score", json={"text_1": TEXTS[0], "text_2": TEXTS[1:]}).json()["data"]
    assert np.allclose([one["score"] for one in scores], cosines, rtol=0, atol=TOLERANCE)
    ranked = http.post("/v1/rerank", json={"query": TEXTS[0], "documents": TEXTS[1:], "top_n": 2}).json()["results"]
    assert [one["index"] for one in ranked] == np.argsort(-cosines)[:2].tolist()


def test_langchain_and_llamaindex(stack, tmp_path):
    outcome = run_agents("test_embeddings.py", stack.url, tmp_path / "report.xml")
    assert outcome.returncode == 0, outcome.output[-8000:]
    assert len(outcome.passed) == 3 and not outcome.skipped


def test_the_example_finds_the_nearest_passages(stack, http, scripted_qwen3, tmp_path):
    """examples/rag.py: the passages by the embeddings of this server, the answer from another one."""
    question, passages = (
        "Who won?",
        [f"{word} came in place {number}." for number, word in enumerate(("Ada", "Bo", "Cy"))],
    )
    made = http.post("/v1/score", json={"text_1": question, "text_2": passages}).json()["data"]
    nearest, _, last = sorted(range(3), key=lambda index: -made[index]["score"])
    (tmp_path / "places.txt").write_text("\n\n".join(passages), encoding="utf-8")
    context = "these passages.\n\n{}\n\nQuestion: Who won?<|im_end|>"
    scripted_qwen3.play(
        *({"contains": context.format(text), "text": f"Read {text}"} for text in (passages[nearest], passages[last]))
    )
    servers = ["--url", f"{scripted_qwen3.stack.url}/v1", "--embedding-url", f"{stack.url}/v1", "--passages", "1"]
    line = [sys.executable, ROOT / "examples" / "rag.py", *servers, question, tmp_path / "places.txt"]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", timeout=PATIENCE_S)
    assert done.stdout.strip() == f"Read {passages[nearest]}", done.stderr


async def test_triton_clients_may_send_any_number_of_texts(stack, expected):
    async with grpc.InferenceServerClient(stack.grpc_url) as client:
        texts = grpc.InferInput("text_input", [len(TEXTS)], "BYTES")
        texts.set_data_from_numpy(np.array([one.encode() for one in TEXTS], dtype=object))
        made = await client.infer("embedding", [texts])
    assert np.allclose(made.as_numpy("embedding"), expected, rtol=0, atol=TOLERANCE)


async def test_the_launcher_cancels_what_runs_when_the_grace_time_is_over(stack):
    processes = ModelProcesses(stack.triton_http_url, stack.grpc_url, stack.metrics_url, lambda: stack.parts[0].pid)
    async with httpx.AsyncClient(base_url=stack.url, timeout=PATIENCE_S) as client:
        body = {"input": [[1000 + one % 500] * 60 for one in range(2048)]}
        task = asyncio.create_task(client.post("/v1/embeddings", json=body))
        await asyncio.to_thread(wait_until, lambda: running_requests(stack) == 1, "the request is in the engine")
        call = processes.cancel_all("embedding")
        response = await task
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
        await asyncio.to_thread(wait_until, lambda: call.done, "the call has ended")
        assert call.error is None
        assert (await client.post("/v1/embeddings", json={"input": "still here"})).status_code == 200


async def test_a_client_that_leaves_cancels_its_inputs(stack):
    async with httpx.AsyncClient(base_url=stack.url, timeout=PATIENCE_S) as client:
        body = {"input": [[1000 + one % 500] * 60 for one in range(2048)]}
        task = asyncio.create_task(client.post("/v1/embeddings", json=body))
        await asyncio.to_thread(wait_until, lambda: running_requests(stack) == 1, "the request is in the engine")
        task.cancel()
        await asyncio.to_thread(wait_until, lambda: running_requests(stack) == 0, "it is cancelled")
        assert (await client.post("/v1/embeddings", json={"input": "still here"})).status_code == 200
