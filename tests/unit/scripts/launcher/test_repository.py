# SPDX-License-Identifier: Apache-2.0
"""Calls of Triton's model repository API."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from scripts.launcher.repository import KEY_HEADER, Call, Load, Repository

CONFIG = {"name": "one.vit", "parameters": {"threads": {"string_value": "2"}}}
ANSWERS: dict[str, tuple[int, Any]] = {
    "/v2/models/one.vit/config": (200, CONFIG),
    "/v2/repository/index": (200, [{"name": "one", "version": "1", "state": "READY"}, {"name": "two"}]),
    "/v2/repository/models/two/load": (400, {"error": "load failed for model 'two'"}),
}


class Triton(HTTPServer):
    """Answers as in ANSWERS, else an empty 200, and remembers what it was asked with which key."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, Any]] = []
        self.repository = Repository(f"http://127.0.0.1:{self.server_port}", "key", 30)


class _Handler(BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        assert self.headers[KEY_HEADER] == "key"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, json.loads(body or b"{}")))
        status, answer = ANSWERS.get(self.path, (200, None))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"" if answer is None else json.dumps(answer).encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def triton() -> Iterator[Triton]:
    with Triton() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def ended(call: Call) -> Call:
    end = time.monotonic() + 30
    while not call.done:
        assert time.monotonic() < end
        time.sleep(0.005)
    return call


def test_the_index_has_the_state_of_each_model(triton: Triton) -> None:
    assert ended(triton.repository.index()).result == {"one": "READY", "two": ""}


def test_a_failure_has_tritons_reason(triton: Triton) -> None:
    assert ended(triton.repository.load("one")).error is None and ended(triton.repository.unload("one")).error is None
    assert ended(triton.repository.load("two")).error == "load failed for model 'two'"
    assert [path for path, _ in triton.asked] == [
        f"/v2/repository/models/{name}" for name in ("one/load", "one/unload", "two/load")
    ]


def test_a_model_that_lost_its_process_gets_another_config(triton: Triton) -> None:
    """Triton does nothing if neither the files nor the config of a loaded model have changed."""
    for _ in range(2):
        assert ended(Load(f"http://127.0.0.1:{triton.server_port}", "key", "one.vit", 30, again=True)).error is None
    sent = [json.loads(body["parameters"]["config"]) for path, body in triton.asked if path.endswith("load")]
    stamps = [config["parameters"].pop("loaded_again") for config in sent]
    assert sent == [CONFIG, CONFIG] and stamps[0] != stamps[1]


def test_no_triton() -> None:
    assert ended(Repository("http://127.0.0.1:1", "key", 5).load("one")).error
