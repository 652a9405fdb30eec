# SPDX-License-Identifier: Apache-2.0
"""A model is downloaded from the hub that HF_ENDPOINT names, its weights last."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.launcher import FREE_PORTS

CONFIG = {"model_type": "qwen3", "vocab_size": 100, "max_position_embeddings": 2048, "eos_token_id": 1}
FILES = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}", "model.safetensors": b"weights"}
# Larger than any machine's memory.
INDEX = json.dumps({"metadata": {"total_size": 2**60}, "weight_map": {}}).encode()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub's API says of models with FILES, one also with an index of its weights; and the files.

    server.fetched has the paths of the files that were fetched.
    """

    server: "HubServer"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = FILES | ({"model.safetensors.index.json": INDEX} if "huge" in path else {})
        if path.startswith("/api/models/org/") and "/tree/" in path:
            entries = [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in files.items()]
            self._send(json.dumps(entries).encode())
        elif path.startswith("/api/models/org/"):
            siblings = [{"rfilename": name} for name in files]
            self._send(json.dumps({"id": "org/model", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/org/") and "/resolve/" in path:
            name = path.rpartition("/")[2]
            self.server.fetched += [name] if self.command == "GET" else []
            self._send(files[name])
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        for name, value in (("Content-Length", len(body)), ("ETag", f'"{len(body)}"'), ("X-Repo-Commit", COMMIT)):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class HubServer(http.server.ThreadingHTTPServer):
    """A running Hub."""

    fetched: list[str]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(("127.0.0.1", 0), Hub) as server:
        server.fetched = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def run(hub: HubServer, home: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, because the hub's package reads the variable when it is imported."""
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    mirror = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    # On GPUs the memory is not checked.
    mirror["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "scripts.cli", *line]
    return subprocess.run(command, env=own | mirror, capture_output=True, text=True, timeout=120)


def test_the_mirror_is_asked(hub: HubServer, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "prepare", "--no-server", "org/tiny")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert hub.fetched[-1] == "model.safetensors"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["org/tiny", "--max-model-len", "4096"], "is longer than the context of org/tiny, 2048 tokens"),
        (["org/tiny", "--vision", "vit"], "--vision vit is for checkpoints of InternVL"),
        (["org/huge"], "org/huge needs"),
    ],
    ids=["context", "pictures", "memory"],
)
def test_what_the_configuration_excludes_costs_no_weights(
    hub: HubServer, tmp_path: Path, line: list[str], said: str
) -> None:
    done = run(hub, tmp_path, "serve", *line, *FREE_PORTS)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert "config.json" in hub.fetched and "model.safetensors" not in hub.fetched
