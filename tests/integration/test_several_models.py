# SPDX-License-Identifier: Apache-2.0
"""Several models behind one address, through a whole stack: two scripted models and two frontend processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from common.models_state import KEY_HEADER
from tests.integration.conftest import ADMIN_KEY
from tests.support.scripted import PAIR, PAIR_ALIAS, ScriptedPair
from tests.support.waiting import PATIENCE_S, wait_until

FIRST, SECOND = PAIR
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
FOREVER = {"contains": "forever", "text": "and on ", "repeat": True, "delay_s": 0.02}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
TRIES = 12  # connections, each of which goes to one of two processes


@pytest.fixture(scope="module")
def pair(scripted_models: ScriptedPair) -> ScriptedPair:
    scripted_models.play(FIRST, FOREVER, {"text": "I am the first."})
    scripted_models.play(SECOND, FOREVER, {"text": "I am the second."})
    return scripted_models


def ask(url: str, model: str, **fields: Any) -> httpx.Response:
    """Ask with a connection of its own."""
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT | {"model": model} | fields, timeout=PATIENCE_S)


def says(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_the_requests_model_chooses(pair: ScriptedPair) -> None:
    url = pair.stack.url
    for name, text in ((FIRST, "I am the first."), (PAIR_ALIAS, "I am the first."), (SECOND, "I am the second.")):
        for _ in range(TRIES // 3):
            assert says(ask(url, name)) == text
        with OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0) as client:
            assert client.completions.create(model=name, prompt="Hi").choices[0].text == text
            assert client.responses.create(model=name, input="Hi").output_text == text
            chunks = client.chat.completions.create(model=name, messages=CHAT["messages"], stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        tokens = httpx.post(f"{url}/tokenize", json={"model": name, "prompt": "Hi there"}, timeout=PATIENCE_S).json()
        back = httpx.post(f"{url}/detokenize", json={"model": name, "tokens": tokens["tokens"]}, timeout=PATIENCE_S)
        assert back.json() == {"prompt": "Hi there"}
    with OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {FIRST, PAIR_ALIAS, SECOND}
        with pytest.raises(NotFoundError, match="served: "):
            client.chat.completions.create(model="third", messages=CHAT["messages"])
    unnamed = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S)
    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "model")


def test_a_disconnect_stops_the_engine_of_its_model(pair: ScriptedPair) -> None:
    """The metrics of each engine have its name, and those of the frontends the model's."""
    frontends = f"{pair.stack.url}/metrics"
    series = {model: f'triton_chat_in_flight{{model="{model}"}}' for model in PAIR}
    streams = {model: f'triton_chat_postprocessing_streams{{model="{model}.postprocessing"}}' for model in PAIR}
    for model, other in (PAIR, PAIR[::-1]):
        forever = [{"role": "user", "content": "forever"}]
        body = CHAT | {"model": model, "stream": True, "messages": forever, "max_tokens": 5000}
        with httpx.stream("POST", f"{pair.stack.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as answer:
            assert answer.status_code == 200, answer.read()
            lines = answer.iter_lines()  # kept, because the connection is closed with it
            next(lines)
            wait_until(
                lambda model=model, other=other: (
                    metric(frontends, series[model]) == 1 and not metric(frontends, series[other])
                ),
                f"the request is one of {model}",
            )
        wait_until(
            lambda model=model: (
                metric(frontends, series[model]) == 0 and metric(pair.stack.metrics_url, streams[model]) == 0
            ),
            f"the request of {model} has ended everywhere",
        )


def metric(url: str, series: str) -> float | None:
    lines = httpx.get(url, timeout=PATIENCE_S).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), None)


def test_each_frontend_asks_the_launcher_for_the_administrator(pair: ScriptedPair) -> None:
    admin = f"{pair.stack.url}/admin/models"
    for headers, status in (({}, 401), ({"Authorization": "Bearer x"}, 403)):
        answers = [httpx.get(admin, headers=headers, timeout=PATIENCE_S) for _ in range(TRIES)]
        assert {answer.status_code for answer in answers} == {status}
    with ThreadPoolExecutor(TRIES) as pool:
        asked = [pool.submit(httpx.get, admin, headers=ADMIN, timeout=PATIENCE_S) for _ in range(TRIES)]
        asked.append(pool.submit(httpx.post, f"{admin}/third/load", headers=ADMIN, timeout=PATIENCE_S))
        # No thread supervises a shared stack while tests run.
        while not all(one.done() for one in asked):
            pair.stack.restart_dead()
            time.sleep(0.05)
    *listed, unknown = [one.result() for one in asked]
    states = [{name: one["state"] for name, one in answer.json()["models"].items()} for answer in listed]
    assert states == [{FIRST: "ready", SECOND: "ready"}] * TRIES
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@pytest.fixture
def discovering(pair: ScriptedPair) -> Iterator[str]:
    """The URL of a frontend that no launcher started, in front of the same Triton."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "frontend", "--port", str(port), "--triton-url", pair.stack.grpc_url]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_CHAT_")}
    process = subprocess.Popen(command, env=environment | {"TRITON_CHAT_REPOSITORY_KEY": ADMIN_KEY})
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_a_frontend_without_a_launcher_finds_the_models_in_triton(pair: ScriptedPair, discovering: str) -> None:
    def ready() -> bool:
        try:
            return httpx.get(f"{discovering}/health/ready", timeout=PATIENCE_S).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, "the frontend is ready")
    wait_until(lambda: ask(discovering, PAIR_ALIAS).status_code == 200, "the first model is found")
    assert says(ask(discovering, PAIR_ALIAS)) == "I am the first."
    assert says(ask(discovering, SECOND)) == "I am the second."
    assert ask(discovering, "triton-chat").status_code == 404
    found, launched = (
        [one | {"created": 0} for one in httpx.get(f"{url}/v1/models", timeout=PATIENCE_S).json()["data"]]
        for url in (discovering, pair.stack.url)
    )
    assert found == launched
    index = f"{pair.stack.triton_http_url}/v2/repository/index"
    assert httpx.post(index, timeout=PATIENCE_S).status_code == 403
    assert httpx.post(index, headers={KEY_HEADER: ADMIN_KEY}, timeout=PATIENCE_S).status_code == 200
