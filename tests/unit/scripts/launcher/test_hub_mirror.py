# SPDX-License-Identifier: Apache-2.0
"""A model is downloaded from the hub that HF_ENDPOINT names."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

FILES = {"config.json": b'{"model_type": "qwen3"}', "tokenizer.json": b"{}"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub's API says of one model with FILES, and the files."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/tiny/tree/"):
            files = [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in FILES.items()]
            self._send(json.dumps(files).encode())
        elif path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name} for name in FILES]
            self._send(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/org/tiny/resolve/"):
            self._send(FILES[path.rpartition("/")[2]])
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


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a running Hub."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_mirror_is_asked(hub: str, tmp_path: Path) -> None:
    """In a process of its own, because the hub's package reads the variable when it is imported."""
    find = "import sys; from rich.console import Console; from scripts.launcher.model import _find; "
    find += "print(_find('org/tiny', Console(stderr=True))[0])"
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = own | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", find], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
