# SPDX-License-Identifier: Apache-2.0
"""The control socket, and the command line that uses it."""

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scripts.cli.main import main
from scripts.cli.models import main as models_command
from scripts.launcher.control import Control, link_path
from scripts.launcher.operations import LIST, Command, OperationError
from scripts.shared.errors import CommandError

PORT = 9997
MODELS = {
    "qwen3": {"state": "ready", "kind": "chat", "requests": 2.0, "load_seconds": 31.5, "names": ["qwen3", "small"]},
    "bge": {"state": "failed", "kind": "embedding", "requests": None, "names": ["bge"], "reason": "no such folder"},
}


class Launcher:
    """Does every command at once, and remembers it. error: fail with it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error: OperationError | None = None

    def submit(self, command: Command) -> None:
        self.asked.append((command.verb, command.name))
        command.models = MODELS
        command.finish("" if command.verb == LIST else f"{command.name} is done", self.error)


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def control(launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path))
    made = Control(launcher.submit, PORT)
    yield made
    made.close()


def ask(control: Control, method: str, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(control.path)), timeout=30) as client:
        return client.request(method, f"http://localhost{path}")


def test_only_its_user_can_open_it(control: Control) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(control.path.parent.stat().st_mode) == 0o700


def test_it_is_found_by_the_port_and_leaves_nothing(control: Control) -> None:
    assert link_path(PORT).resolve() == control.path
    control.close()
    assert not link_path(PORT).is_symlink() and not control.path.parent.exists()


def test_the_link_of_a_newer_launcher_stays(control: Control, launcher: Launcher) -> None:
    newer = Control(launcher.submit, PORT)
    control.close()
    assert link_path(PORT).resolve() == newer.path
    newer.close()


def test_paths_are_operations(control: Control, launcher: Launcher) -> None:
    assert ask(control, "GET", "/models").json() == {"models": MODELS, "message": ""}
    for verb in ("load", "unload", "reload"):
        assert ask(control, "POST", f"/models/a%2Fb/{verb}").json()["message"] == "a/b is done"
    ask(control, "POST", "/models/apply")
    assert launcher.asked == [("list", ""), ("load", "a/b"), ("unload", "a/b"), ("reload", "a/b"), ("apply", "")]
    for method, path in (("GET", "/"), ("POST", "/models"), ("POST", "/models/a/destroy"), ("POST", "/models/a")):
        assert ask(control, method, path).status_code == 404


def test_a_failure_has_its_status_and_reason(control: Control, launcher: Launcher) -> None:
    launcher.error = OperationError("it is being changed", 409)
    answer = ask(control, "POST", "/models/qwen3/load")
    assert (answer.status_code, answer.json()) == (409, {"error": "it is being changed"})


def test_a_request_that_is_none_is_refused(control: Control, launcher: Launcher) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(control.path))
        client.sendall(b"POST /models/qwen3/load HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert launcher.asked == []


def test_a_client_that_has_gone_is_no_line_on_the_terminal(control: Control, capfd: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()
    finish = control._server.shutdown_request

    def shutdown_request(request: socket.socket) -> None:
        finish(request)
        ended.set()

    control._server.shutdown_request = shutdown_request  # type: ignore[method-assign]
    client = socket.socket(socket.AF_UNIX)

    def submit(command: Command) -> None:
        client.close()
        command.finish()

    control._server.submit = submit
    client.connect(str(control.path))
    client.sendall(b"POST /models/qwen3/load HTTP/1.1\r\n\r\n")
    assert ended.wait(30)
    assert capfd.readouterr().err == ""


def test_who_waits_is_told_that_the_server_stops(control: Control) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(control.path)), timeout=30) as client:
        # Closed as soon as the command is there.
        control._server.submit = lambda command: control.close()
        assert client.post("http://localhost/models/qwen3/load").status_code == 503


def test_the_command_line_lists_as_a_table_and_as_json(control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert models_command(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["qwen3", "ready", "chat", "2", "31.5", "qwen3,", "small"]
    assert lines[2] == ["bge", "failed", "embedding", "bge", "no", "such", "folder"]
    assert models_command(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == MODELS


def test_the_command_line_does_what_it_says(
    control: Control, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (["load", "qwen3"], ["unload", "qwen3"], ["reload", "qwen3"], ["apply"]):
        assert models_command(line) == 0
    assert [verb for verb, _ in launcher.asked] == ["load", "unload", "reload", "apply"]
    assert capsys.readouterr().out.splitlines()[0] == "qwen3 is done"


def test_failures_are_one_line(control: Control, launcher: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    launcher.error = OperationError("there is no model 'x'; known: qwen3", 404)
    assert main(["models", "load", "x"]) == 1
    assert capsys.readouterr().err == "error: there is no model 'x'; known: qwen3\n"
    with pytest.raises(CommandError, match="no server with several models runs at port 9998"):
        models_command(["list", "--port", "9998"])
    link_path(9998).symlink_to("/nowhere/control.sock")
    with pytest.raises(CommandError, match="at port 9998 does not answer"):
        models_command(["list", "--port", "9998"])


@pytest.mark.parametrize("line", [["load"], ["destroy", "x"], [], ["apply", "--url", "http://localhost:1"]])
def test_lines_that_are_wrong(line: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        models_command(line)
    assert ended.value.code == 2
