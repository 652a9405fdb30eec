# SPDX-License-Identifier: Apache-2.0
"""Every process is killed in turn under load: each answer ends in the right shape, and service comes back by itself.

Processes that only stand still for a while lose nothing (long form: `python -m tests.soak stalls`).
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from scripts.launcher import FREE_PORTS, Stack
from scripts.launcher.child_process import ChildProcess
from scripts.launcher.environment import frontend_command, triton_command
from scripts.launcher.ports import choose_ports
from scripts.launcher.readiness import answers_ok
from tests.soak.chaos.pressure import limited
from tests.soak.gauges import read_gauges
from tests.support.checkpoints import make_checkpoint
from tests.support.scripted import ScriptedStack, scripted_stack
from tests.support.waiting import PATIENCE_S, running_requests

# A server that restarts on a machine that others use too.
RESTART_S = 240.0
pytestmark = pytest.mark.timeout(600)
CHAT = "/v1/chat/completions"
# Of no process's business: a proxy that nobody answers at, and a home that nobody can write to or make.
HOSTILE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")}
HOSTILE["HOME"] = "/proc/nobody"
# Answers of the scripted engine: one lasts a few seconds, the other as long as its reader.
STORY = {"contains": "story", "text": "word " * 120, "delay_s": 0.02}
EPIC = {"contains": "epic", "text": "word ", "repeat": True, "delay_s": 0.02}


class Load:
    """Streamed and whole answers under way, each on a thread; the main thread is the launcher's.

    ahead_s: by which the whole ones begin before the others.
    """

    def __init__(self, url: str, words: str, count: int, max_tokens: int = 4000, ahead_s: float = 0.0) -> None:
        self._url, self._body = url, {"messages": [{"role": "user", "content": words}], "max_tokens": max_tokens}
        self.ends: list[str] = []
        self.started = 0
        self._threads: list[threading.Thread] = []
        self._start(count - count // 2, stream=False)
        time.sleep(ahead_s)
        self._start(count // 2, stream=True)

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self, count: int, *, stream: bool) -> None:
        begun = [threading.Thread(target=self._run, args=(stream,), daemon=True) for _ in range(count)]
        self._threads += begun
        for thread in begun:
            thread.start()

    def _run(self, stream: bool) -> None:
        try:
            self.ends.append(self._stream() if stream else self._whole())
        except httpx.TransportError as error:
            self.ends.append(type(error).__name__)

    def _stream(self) -> str:
        """How a streamed answer ended: its finish reason, or the code of its error event; [DONE] must be the last."""
        body = self._body | {"stream": True}
        with httpx.stream("POST", self._url + CHAT, json=body, timeout=PATIENCE_S) as response:
            if response.status_code != 200:
                response.read()
                return refusal(response)
            data = []
            for line in response.iter_lines():
                if line:
                    data.append(line.removeprefix("data: "))
                    self.started += len(data) == 5
        assert data[-1] == "[DONE]", data[-1]
        last = json.loads(data[-2])
        return error_code(last) if "error" in last else last["choices"][0]["finish_reason"]

    def _whole(self) -> str:
        response = httpx.post(self._url + CHAT, json=self._body, timeout=PATIENCE_S)
        if response.status_code != 200:
            return refusal(response)
        return response.json()["choices"][0]["finish_reason"]


def refusal(response: httpx.Response) -> str:
    assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
    return error_code(response.json())


def error_code(body: dict) -> str:
    """The code of an error, which must be a whole OpenAI error object."""
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    return body["error"]["code"]


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=PATIENCE_S).status_code == 200
    except httpx.TransportError:
        return False


class Faulty:
    """A running stack that this thread looks after while it waits, as `Stack.wait` does."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def supervise_until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + RESTART_S
        while not condition():
            assert time.monotonic() < end, f"not in time: {what}"
            self.stack.restart_dead()
            time.sleep(0.05)

    def is_ready(self) -> bool:
        return is_ready(self.stack.url)

    def await_unready(self) -> None:
        """Nothing is restarted meanwhile: a model can be loaded again before anybody has asked."""
        end = time.monotonic() + RESTART_S
        while self.is_ready():
            assert time.monotonic() < end, "not in time: the stack says that it cannot serve"
            time.sleep(0.05)

    def load(self, words: str, count: int = 4, max_tokens: int = 4000) -> Load:
        """Answers under way, all the streamed ones with text; the whole ones, which show nothing, began before them."""
        load = Load(self.stack.url, words, count, max_tokens, ahead_s=1.0)
        self.supervise_until(lambda: "unavailable" in load.ends or load.started >= count // 2, "answers are under way")
        assert "unavailable" not in load.ends
        return load

    def serves(self) -> bool:
        """Whether every frontend can serve: twelve short answers in a row, of which each one gets some."""
        brief = Load(self.stack.url, "story", 12, max_tokens=4)
        self.supervise_until(lambda: brief.done, "short answers")
        return brief.ends == ["length"] * 12

    def stubs(self) -> dict[str, int]:
        return model_processes(self.stack.parts[0].pid)


def model_processes(tritonserver: int) -> dict[str, int]:
    """One living process of each Python model."""
    found: dict[str, int] = {}
    for child in psutil.Process(tritonserver).children():
        with suppress(psutil.Error, IndexError):
            if child.name().startswith("triton_python_b") and child.status() != psutil.STATUS_ZOMBIE:
                found[Path(child.cmdline()[1]).parents[1].name] = child.pid
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def scripted(qwen3_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedStack]:
    # The clean stop that scripted_stack checks cannot be had here: Triton 2.51 never releases what a dead process held.
    with scripted_stack(
        "qwen3",
        qwen3_tokenizer_dir,
        tmp_path_factory.mktemp("faults"),
        more=["--frontends", "2"],
        clean_stop=False,
        **HOSTILE,
    ) as running:
        running.play(STORY, EPIC)
        yield running


@pytest.fixture
def faulty(scripted: ScriptedStack) -> Iterator[Faulty]:
    made = Faulty(scripted.stack)
    made.supervise_until(made.serves, "the stack serves")
    yield made
    # Whatever the test did to it, it comes back.
    made.supervise_until(made.serves, "the stack serves again")
    assert made.is_ready()
    assert all(part.exit_status() is None for part in scripted.stack.parts)


def test_the_model_repository_api_is_the_launchers(faulty: Faulty) -> None:
    answer = httpx.post(f"{faulty.stack.triton_http_url}/v2/repository/models/vit/unload", json={}, timeout=PATIENCE_S)
    assert answer.status_code == 403


@pytest.mark.python_engine(
    "a whole answer shows nothing before its end, so that nobody knows that it is past a lost model"
)
@pytest.mark.parametrize("model", ["preprocessing", "vit"])
def test_a_model_before_the_engine(faulty: Faulty, model: str) -> None:
    """What is past it goes on; what would need it is refused, and it is loaded again."""
    triton, load = faulty.stack.parts[0].pid, faulty.load("story")
    lost = faulty.stubs()[model]
    kill(lost)
    # Of two instances of preprocessing the one that lives may go on serving; who asks finds the dead one soon.
    asking = Load(faulty.stack.url, "story", 12, max_tokens=4)
    faulty.supervise_until(lambda: faulty.stubs().get(model, lost) != lost, "the model's process is back")
    faulty.supervise_until(lambda: load.done and asking.done, "all answers end")
    assert load.ends == ["stop"] * 4
    assert set(asking.ends) <= {"length", "unavailable"}
    assert model == "preprocessing" or "unavailable" in asking.ends
    faulty.supervise_until(faulty.serves, "the stack serves again")
    assert faulty.stack.parts[0].pid == triton


def test_the_model_behind_the_engine(faulty: Faulty) -> None:
    triton, load = faulty.stack.parts[0].pid, faulty.load("epic")
    kill(faulty.stubs()["postprocessing"])
    faulty.await_unready()
    faulty.supervise_until(lambda: load.done, "all answers end")
    assert load.ends == ["unavailable"] * 4
    faulty.supervise_until(faulty.serves, "the stack serves again")
    assert faulty.stack.parts[0].pid == triton


def test_models_that_stand_still(faulty: Faulty) -> None:
    """Triton would take each of them for dead after a second; nobody loses anything."""
    triton, load = faulty.stack.parts[0], faulty.load("epic", max_tokens=400)
    stopped = [pid for model, pid in faulty.stubs().items() if model != "tensorrt_llm"]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    asking = Load(faulty.stack.url, "story", 12, max_tokens=4)
    end = time.monotonic() + 3.0
    faulty.supervise_until(lambda: time.monotonic() > end, "three seconds have gone by")
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    faulty.supervise_until(lambda: load.done and asking.done, "all answers end")
    assert load.ends == ["length"] * 4 and asking.ends == ["length"] * 12
    assert faulty.stack.parts[0] is triton


def test_frontends_that_get_no_more_memory(faulty: Faulty) -> None:
    """A request that needs more fails alone, or with its frontend, which comes back."""
    triton, load = faulty.stack.parts[0].pid, faulty.load("epic", max_tokens=200)
    large = {"messages": [{"role": "user", "content": "story " + "so " * 5_000_000}], "max_tokens": 4}
    answers: list[str] = []
    with ExitStack() as limits:
        for part in faulty.stack.parts[1:]:
            process = psutil.Process(part.pid)
            limits.enter_context(limited(process, psutil.RLIMIT_AS, process.memory_info().vms))
        for _ in range(4):
            try:
                answers.append(error_code(httpx.post(faulty.stack.url + CHAT, json=large, timeout=PATIENCE_S).json()))
            except httpx.TransportError:
                answers.append("no answer")
            faulty.stack.restart_dead()
    faulty.supervise_until(lambda: load.done, "all answers end")
    # It is too long for the context, if there is memory enough to find that out.
    assert set(answers) <= {"context_length_exceeded", "internal_error", "overloaded", "unavailable", "no answer"}
    assert set(load.ends) <= {"length", "ReadError", "RemoteProtocolError"} and len(load.ends) == 4
    faulty.supervise_until(faulty.serves, "the stack serves again")
    assert faulty.stack.parts[0].pid == triton


@pytest.mark.parametrize("victim", ["tensorrt_llm", "tritonserver"])
def test_what_takes_the_whole_server_with_it(faulty: Faulty, victim: str) -> None:
    dead, load = faulty.stack.parts[0], faulty.load("epic")
    kill(faulty.stubs()["tensorrt_llm"] if victim == "tensorrt_llm" else dead.pid)
    faulty.await_unready()
    faulty.supervise_until(lambda: load.done, "all answers end")
    assert load.ends == ["unavailable"] * 4
    faulty.supervise_until(faulty.serves, "the stack serves again")
    assert dead.session() == []


@pytest.mark.python_engine("it does not know whose requests it has")
def test_a_frontend(faulty: Faulty, scripted: ScriptedStack, tmp_path: Path) -> None:
    """Its clients lose their connections and the engine their requests; those of the other one notice nothing."""
    hurry = tmp_path / "hurry"
    scripted.play(STORY, EPIC | {"contains": "saga", "hurry": str(hurry)}, EPIC)
    load = faulty.load("saga", 12, max_tokens=2000)
    victim = faulty.stack.parts[1]
    kill(victim.pid)
    faulty.supervise_until(lambda: faulty.stack.parts[1].pid != victim.pid, "the frontend is back")
    faulty.supervise_until(lambda: bool(load.ends), "its clients learn of it")
    faulty.supervise_until(
        lambda: running_requests(faulty.stack) == 12 - len(load.ends), "the engine drops what it left"
    )
    assert not load.done, "that came too late to tell"
    hurry.touch()
    faulty.supervise_until(lambda: load.done, "all answers end")
    assert "length" in load.ends and set(load.ends) <= {"length", "ReadError", "RemoteProtocolError"}
    assert len(load.ends) == 12
    faulty.supervise_until(faulty.serves, "the stack serves again")
    faulty.supervise_until(
        lambda: read_gauges(faulty.stack)["triton_chat_postprocessing_streams"] == 0,
        "postprocessing forgets what it left",
    )


def test_sigterm_drains_a_frontend(faulty: Faulty, tmp_path: Path) -> None:
    port = choose_ports(faulty.stack.options).frontend
    settings = {"PORT": str(port), "TRITON_URL": faulty.stack.grpc_url, "GRACE_PERIOD": "15"}
    environment = os.environ | {f"TRITON_CHAT_{name}": value for name, value in settings.items()}
    part = ChildProcess("frontend", frontend_command(), environment, tmp_path / "frontend.log")
    url = f"http://127.0.0.1:{port}"
    try:
        faulty.supervise_until(lambda: "listening" in "".join(part.lines()), "the frontend listens")
        ending, endless = Load(url, "epic", 2, max_tokens=300), Load(url, "epic", 2)
        faulty.supervise_until(lambda: running_requests(faulty.stack) == 4, "the engine works at all answers")
        part.terminate()
        faulty.supervise_until(lambda: not is_ready(url), "it says that it goes away")
        refused = Load(url, "story", 2)
        faulty.supervise_until(lambda: refused.done, "new requests are refused")
        assert refused.ends == ["overloaded"] * 2
        faulty.supervise_until(lambda: part.exit_status() is not None, "the frontend ends")
        assert part.exit_status() == 0
        faulty.supervise_until(lambda: ending.done and endless.done, "all answers end")
        assert (ending.ends, endless.ends) == (["length"] * 2, ["unavailable"] * 2)
    finally:
        part.stop(0.0)


@pytest.mark.python_engine("the launcher lays out its repository")
def test_a_tritonserver_without_the_launcher(faulty: Faulty, tmp_path: Path) -> None:
    """Whoever runs it must see that it is broken: it ends, and nothing of it stays."""
    ports = choose_ports(faulty.stack.options)
    command = triton_command(faulty.stack.server, faulty.stack.options, ports, "key")
    environment = faulty.stack.engine_environment
    del environment["TRITON_CHAT_SUPERVISED"]
    part = ChildProcess("tritonserver", command, environment, tmp_path / "tritonserver.log")
    try:
        ready = f"http://127.0.0.1:{ports.http}/v2/health/ready"
        faulty.supervise_until(lambda: answers_ok(ready), "it serves")
        kill(model_processes(part.pid)["vit"])
        faulty.supervise_until(lambda: part.exit_status() is not None, "it ends")
        faulty.supervise_until(lambda: not part.session(), "its processes end")
    finally:
        part.stop(0.0)


def test_the_engine_core(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    """The real engine: its process dies, that of the model follows, and the launcher restarts the server.

    That such a start ends well is shown with the scripted engine, which starts in half the time.
    """
    checkpoint = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "qwen3")
    arguments = [str(checkpoint), "--log-dir", str(tmp_path / "logs"), "--max-model-len", "2048", *FREE_PORTS]
    environment = os.environ | HOSTILE | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with Stack(arguments, environment=environment) as stack:
        faulty = Faulty(stack)
        # Found before the load: on a fast machine its answers take little more than a second.
        dead, core = stack.parts[0], engine_core(stack.parts[0].pid)
        load = faulty.load("a very long story", max_tokens=1900)
        kill(core)
        faulty.supervise_until(lambda: load.done, "all answers end")
        assert set(load.ends) <= {"unavailable", "length", "stop"} and "unavailable" in load.ends
        faulty.supervise_until(lambda: stack.parts[0] is not dead, "tritonserver is restarted")
        assert dead.session() == []
        stack.hurry.set()


def engine_core(tritonserver: int) -> int:
    """The engine core's process, which is forked from a server of a process of the model."""
    processes = psutil.Process(tritonserver).children(recursive=True)
    (core,) = [process for process in processes if "EngineCore" in " ".join(process.cmdline())]
    return core.pid
