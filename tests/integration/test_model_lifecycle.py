# SPDX-License-Identifier: Apache-2.0
"""Two models in one server: one is reloaded, unloaded, changed and killed under load, and the other notices nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scripts.launcher import Stack
from scripts.launcher.stubs import model_of
from tests.integration.conftest import ADMIN_KEY
from tests.support.scripted import PAIR, PAIR_ALIAS, ScriptedPair, scripted_pair
from tests.support.waiting import PATIENCE_S

pytestmark = [pytest.mark.timeout(600), pytest.mark.python_engine("its scripts have an engine of their own")]
CHANGED, OTHER = PAIR
# An answer of some seconds, and one as long as its reader.
STORY = {"contains": "story", "text": "word " * 150, "delay_s": 0.02}
EPIC = {"contains": "epic", "text": "word ", "repeat": True, "delay_s": 0.02}
TRIES = 8  # connections, each of which goes to one of two frontends
# Each repetition is two tokens.
EPIC_WORDS = 1000


class Answer:
    """A streamed answer on a thread of its own. end: its finish reason, or the code of its error."""

    def __init__(self, url: str, model: str, words: str, max_tokens: int = 2 * EPIC_WORDS) -> None:
        self._url, self.model = url, model
        self._body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": max_tokens}
        self.words = 0
        self.end: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        url, body = f"{self._url}/v1/chat/completions", self._body | {"stream": True}
        with httpx.stream("POST", url, json=body, timeout=PATIENCE_S) as response:
            if response.status_code != 200:
                error = json.loads(response.read())["error"]
                retry = "" if response.status_code != 503 else f" retry {int(response.headers['Retry-After']) >= 1}"
                self.end = f"{response.status_code} {error['code']}{retry}"
                return
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    self._read(json.loads(line.removeprefix("data: ")))

    def _read(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.end = chunk["error"]["code"]
            return
        for choice in chunk["choices"]:
            self.words += (choice["delta"].get("content") or "").count("word")
            self.end = choice["finish_reason"] or self.end


class Server:
    """The running stack, which this thread supervises while it waits."""

    def __init__(self, pair: ScriptedPair) -> None:
        self.pair = pair
        self.stack: Stack = pair.stack

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 2 * PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"not in time: {what}; {self.states()}"
            self.stack.restart_dead()
            time.sleep(0.05)

    def answers(self, model: str, words: str, count: int = 4, **more: Any) -> list[Answer]:
        """Answers under way, all with text."""
        made = [Answer(self.stack.url, model, words, **more) for _ in range(count)]
        self.until(lambda: all(one.words or one.done for one in made), f"answers of {model}")
        assert not any(one.done for one in made), [one.end for one in made]
        return made

    def ended(self, answers: list[Answer]) -> list[str | None]:
        self.until(lambda: all(one.done for one in answers), "answers end")
        return [one.end for one in answers]

    def start_triton_chat(self, *words: str, admin: bool = False) -> "subprocess.Popen[str]":
        """Start `triton-chat models ...`. admin: it asks a frontend, with the admin key, and not the launcher itself."""
        port = ["--port", str(self.stack.ports.frontend)]
        where = ["--url", self.stack.url, "--admin-key", ADMIN_KEY] if admin else port
        command = [sys.executable, "-m", "scripts.cli", "models", *words, *where]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def triton_chat(self, *words: str, admin: bool = False) -> tuple[int, str]:
        """The exit status and the output of `triton-chat models ...`, while this thread goes on supervising."""
        process = self.start_triton_chat(*words, admin=admin)
        self.until(lambda: process.poll() is not None, " ".join(words))
        assert process.stdout is not None
        return process.returncode, process.stdout.read()

    def listed(self, model: str) -> dict[str, Any]:
        status, output = self.triton_chat("list", "--json")
        assert status == 0
        return json.loads(output)["models"][model]

    def states(self) -> dict[str, str]:
        assert self.stack.several is not None
        return {name: state.state for name, state in self.stack.several.models.states.items()}

    def stubs(self, model: str) -> dict[str, psutil.Process]:
        """The living processes of a model, by step."""
        found = {}
        for child in psutil.Process(self.stack.parts[0].pid).children():
            name = model_of(child.pid) if child.name().startswith("triton_python_b") else None
            if name is not None and name.startswith(f"{model}."):
                found[name] = child
        return found

    def short_answer(self) -> str | None:
        """How a short request to the changed model ends."""
        (end,) = self.ended([Answer(self.stack.url, CHANGED, "story", max_tokens=5)])
        return end

    def everywhere(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds at each of some connections, and so in each of two frontends."""
        self.until(lambda: all(condition() for _ in range(TRIES)), what)

    def names(self) -> list[str]:
        found = httpx.get(f"{self.stack.url}/v1/models", timeout=PATIENCE_S).json()["data"]
        return [one["id"] for one in found]

    def steady(self, model: str) -> "Steady":
        return Steady(self, model)


class Steady:
    """Short requests to a model, one after the other, until the block ends; none of them may be lost."""

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._model = server, model
        self.ends: list[str | None] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Steady":
        self._thread.start()
        self._server.until(lambda: bool(self.ends), "the first short answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.until(lambda: not self._thread.is_alive(), "the last short answer")

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = Answer(self._server.stack.url, self._model, "story", max_tokens=5)
            answer._thread.join()
            self.ends.append(answer.end)


@pytest.fixture(scope="module")
def server(qwen3_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The clean stop cannot be had: Triton 2.51 never releases what a dead process held.
    folder = tmp_path_factory.mktemp("lifecycle")
    more = ["--frontends", "2", "--admin-key", ADMIN_KEY]
    with scripted_pair(qwen3_tokenizer_dir, folder, clean_stop=False, more=more) as pair:
        for name in PAIR:
            pair.play(name, STORY, EPIC)
        yield Server(pair)


def test_a_reload_has_no_gap_and_gives_the_old_memory_back(server: Server) -> None:
    old, kept = server.stubs(CHANGED), server.stubs(OTHER)
    running = server.answers(CHANGED, "story") + server.answers(OTHER, "story")
    with server.steady(CHANGED) as asking, server.steady(OTHER) as beside:
        status, output = server.triton_chat("reload", CHANGED)
    assert (status, "without a gap" in output) == (0, True), output
    assert server.ended(running) == ["stop"] * len(running) and all(one.words == 150 for one in running)
    assert set(asking.ends) == set(beside.ends) == {"length"}, "no request is lost"
    server.until(lambda: not any(process.is_running() for process in old.values()), "the old processes end")
    assert {name.split(".")[1] for name in server.stubs(CHANGED)} == {"g2"}
    assert server.stubs(OTHER) == kept
    assert server.listed(CHANGED)["engine"] == f"{CHANGED}.g2.tensorrt_llm"


def test_unloading_lets_requests_end_and_gives_the_memory_back(server: Server, tmp_path: Path) -> None:
    hurry = tmp_path / "hurry"
    server.pair.play(CHANGED, STORY, EPIC | {"contains": "saga", "hurry": str(hurry)}, EPIC)
    kept = server.answers(OTHER, "epic")
    held = sum(process.memory_info().rss for process in server.stubs(CHANGED).values())
    assert held > 100 * 2**20
    running = server.answers(CHANGED, "saga")
    assert server.listed(CHANGED)["requests"] == len(running)
    unloading = server.start_triton_chat("unload", CHANGED, admin=True)
    server.until(lambda: server.states()[CHANGED] == "draining", "it drains")
    status, output = server.triton_chat("reload", CHANGED, admin=True)
    assert (status, "is being changed (draining)" in output) == (1, True), output
    server.until(lambda: server.short_answer() == "503 model_not_ready retry True", "new requests are refused")
    assert not any(one.done for one in running), "that came too late to tell"
    hurry.touch()
    server.until(lambda: unloading.poll() is not None, "it is unloaded")
    assert unloading.returncode == 0 and server.states() == {CHANGED: "unloaded", OTHER: "ready"}
    assert server.ended(running) == ["length"] * len(running) and all(one.words == EPIC_WORDS for one in running)
    assert server.stubs(CHANGED) == {}, "nothing of it is in memory"
    server.everywhere(lambda: server.short_answer() == "404 model_not_found", "it is gone")
    assert all(server.names() == [OTHER] for _ in range(TRIES))
    # It comes back, and the other one has not noticed anything.
    assert server.triton_chat("load", CHANGED, admin=True)[0] == 0
    server.everywhere(lambda: {CHANGED, PAIR_ALIAS} <= set(server.names()), "frontends know of it")
    assert server.ended([Answer(server.stack.url, CHANGED, "story")]) == ["stop"]
    assert server.ended(kept) == ["length"] * 4 and all(one.words == EPIC_WORDS for one in kept)


def test_a_failed_load_leaves_what_served(server: Server) -> None:
    file = server.pair.models_file
    as_it_was = file.read_text()
    before = {name: server.listed(name)["engine"] for name in PAIR}
    broken = json.loads(as_it_was)
    broken["models"][CHANGED]["slots"] = "many"
    file.write_text(json.dumps(broken))
    with server.steady(CHANGED) as asking:
        status, output = server.triton_chat("apply")
    assert status == 1 and "many" in output and "serves as before" in output, output
    assert set(asking.ends) == {"length"}
    file.write_text(as_it_was)
    assert server.triton_chat("apply") == (0, "applied: nothing had changed\n")
    assert {name: server.listed(name)["engine"] for name in PAIR} == before


def test_a_killed_engine_is_replaced_and_the_other_model_streams_on(server: Server) -> None:
    triton = server.stack.parts[0].pid
    lost, kept = server.answers(CHANGED, "epic"), server.answers(OTHER, "epic")
    old = server.stubs(CHANGED)
    with server.steady(OTHER) as beside:
        os.kill(next(process.pid for name, process in old.items() if name.endswith("tensorrt_llm")), signal.SIGKILL)
        assert server.ended(lost) == ["unavailable"] * 4
        server.until(lambda: server.short_answer() == "503 model_not_ready retry True", "it says that it comes back")
        server.until(lambda: server.states()[CHANGED] == "ready", "it is back")
    assert server.ended(kept) == ["length"] * 4 and all(one.words == EPIC_WORDS for one in kept)
    assert set(beside.ends) == {"length"}
    server.until(lambda: server.short_answer() == "length", "it serves again")
    server.until(lambda: not any(_lives(process) for process in old.values()), "nothing of the old one is left")
    assert server.stack.parts[0].pid == triton


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
