# SPDX-License-Identifier: Apache-2.0
"""The benchmark of embeddings: its figures, and its client against a small server."""

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts.bench import embeddings
from scripts.bench.errors import BenchError


class Embeds(BaseHTTPRequestHandler):
    """Answers each request at once; with `status` other than 200 it refuses."""

    status = 200
    bodies: list[dict[str, object]] = []  # noqa: RUF012 # emptied by the fixture

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        data = json.dumps({"data": [{"embedding": [1.0, 0.0]} for _ in body["input"]]}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Embeds.status = 200
    Embeds.bodies.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Embeds) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_line_is_read_and_unknown_flags_are_the_stacks() -> None:
    options = embeddings.parse(["--model", "/m", "--rounds", "2", "--dtype", "float32"])
    assert (options.model, options.rounds, options.serve_flags) == ("/m", 2, ["--dtype", "float32"])


async def test_a_load_asks_for_base64_of_so_many_inputs(url: str) -> None:
    options = embeddings.parse(["--seconds", "1", "--words", "5"])
    rate, latency, made = await embeddings._load(url, (2, 3), random.Random(1), options)
    assert rate > 0 and latency > 0 and made == 3 * len(Embeds.bodies)
    assert {body["encoding_format"] for body in Embeds.bodies} == {"base64"}
    inputs = [body["input"] for body in Embeds.bodies]
    assert all(len(texts) == 3 and all(len(text.split()) == 5 for text in texts) for texts in inputs)


async def test_a_refusal_ends_the_benchmark(url: str) -> None:
    Embeds.status = 503
    with pytest.raises(BenchError, match="HTTP 503"):
        await embeddings._load(url, (1, 1), random.Random(1), embeddings.parse(["--seconds", "1"]))


def test_equal_servers_agree(url: str) -> None:
    assert asyncio.run(embeddings._agree([url, url]))


def test_rows_are_medians_and_those_of_the_ratios_of_each_round() -> None:
    results = [
        {"at_once": a, "inputs": i, "server": name, "embeddings_per_s": rate, "latency_ms_p50": 2.0}
        | {"cpu_s_per_1k_embeddings": {"frontend-1": rate / 10}}
        for a, i in embeddings.LOADS
        for name, rates in (("triton-chat", (30.0, 10.0, 20.0)), ("vllm-serve", (10.0, 10.0, 80.0)))
        for rate in rates
    ]
    rows = embeddings._rows(results)
    assert [(row["at_once"], row["inputs"]) for row in rows] == list(embeddings.LOADS)
    for row in rows:
        assert (row["triton-chat"], row["vllm-serve"]) == (20.0, 10.0)
        assert (row["ratio"], row["ratios"]) == (1.0, [3.0, 1.0, 0.25])
        assert row["triton-chat_cpu_s_per_1k"] == {"frontend-1": 2.0}
