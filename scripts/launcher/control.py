# SPDX-License-Identifier: Apache-2.0
"""The launcher's control socket: HTTP with JSON over a Unix socket that only its user may open.

  GET  /models                                   every model
  POST /models/NAME/load | unload | reload       one model
  POST /models/apply                             what the file of models says now

An answer comes when the operation is done: {"models": {NAME: {...}}, "message": text}, or a status and {"error": text}.
"""

import json
import os
import re
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from scripts.cache import cache_dir
from scripts.launcher.operations import APPLY, LIST, LOAD, RELOAD, UNLOAD, Command

# The environment variable of the frontends with the socket's path.
VARIABLE = "TRITON_CHAT_CONTROL_SOCKET"
VERBS = (LOAD, UNLOAD, RELOAD)
_POLL_S = 0.5


def link_path(port: int) -> Path:
    """The link to the socket of the server at a port, by which the command line finds it."""
    return cache_dir() / "control" / f"{port}.sock"


class Control:
    """The socket, served until `close`. submit: hands a command to the launcher's main thread. port: of the API."""

    def __init__(self, submit: Callable[[Command], None], port: int) -> None:
        # Paths of sockets may have 107 characters, which a cache folder's path can exceed. Only the user may enter it.
        self._folder = tempfile.TemporaryDirectory(prefix="triton_chat_control_", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / "control.sock"
        self._server = _Server(str(self.path), submit)
        self.path.chmod(0o600)
        self._link = link_path(port)
        self._link.parent.mkdir(parents=True, exist_ok=True)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self.path)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Those who wait for an operation get the error that the server stops."""
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        # Another launcher may have put its own in this place by now.
        if self._link.is_symlink() and os.readlink(self._link) == str(self.path):
            self._link.unlink(missing_ok=True)
        self._folder.cleanup()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, submit: Callable[[Command], None]) -> None:
        super().__init__(path, _Handler)
        self.submit = submit
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing for a client that has gone, such as a command line that was interrupted."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # as socketserver has it


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server
    protocol_version = "HTTP/1.1"
    # A client that does not finish its request does not keep a thread for ever.
    timeout = 60

    def do_GET(self) -> None:  # the name that http.server calls
        if self.path == "/models":
            self._do(Command(LIST))
        else:
            self._answer(404, {"error": f"there is no {self.path}"})

    def do_POST(self) -> None:  # the name that http.server calls
        length = self.headers.get("Content-Length") or "0"
        if not re.fullmatch("[0-9]{1,6}", length):
            self.close_connection = True
            self._answer(400, {"error": "a command has no body"})
            return
        self.rfile.read(int(length))
        match self.path.strip("/").split("/"):
            case ["models", "apply"]:
                self._do(Command(APPLY))
            case ["models", name, verb] if verb in VERBS:
                self._do(Command(verb, unquote(name)))
            case _:
                self._answer(404, {"error": f"there is no {self.path}"})

    def _do(self, command: Command) -> None:
        self.server.submit(command)
        while not command.wait(_POLL_S):
            if self.server.closing.is_set():
                self._answer(503, {"error": "the server is stopping"})
                return
        if command.error is not None:
            self._answer(command.error.status, {"error": str(command.error)})
        else:
            self._answer(200, {"models": command.models, "message": command.message})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """Name the client in a log line; a Unix socket's has no address."""
        return "control socket"

    def log_message(self, format: str, *arguments: object) -> None:  # as http.server has it
        """Log nothing: the launcher prints what is done."""
