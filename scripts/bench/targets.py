# SPDX-License-Identifier: Apache-2.0
"""Start and stop the targets: this stack with its three endpoints, the peers, and the engine without a server."""

import json
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from common.models_state import KEY_HEADER
from common.processes import command_line
from scripts.bench.load import Endpoint, Outcome, run
from scripts.bench.peers import peer_environment, peer_flags, vllm_serve
from scripts.bench.questions import Stream
from scripts.bench.target_names import ENDPOINTS
from scripts.launcher import LaunchError, Stack
from scripts.launcher.child_process import ChildProcess
from scripts.launcher.environment import python_command

NAME = "bench"
TOKEN_RATE_ENGINE = "scripts.bench.token_rate_engine:TokenRateEngine"  # nosec B105 # a class, not a password
READY_TIMEOUT_S = 1800.0

Load = Callable[[Sequence[Stream], int, Callable[[], None]], Outcome]


@dataclass(slots=True)
class RunningTarget:
    """A running target, or several that are endpoints of one stack.

    loads: name -> function that runs streams in a number of client processes. roots: process ids by role. url: base
    URL of the OpenAI API without /v1, empty if it has none.
    """

    loads: dict[str, Load]
    roots: dict[str, int]
    started_s: float
    tritonserver: str | None = None
    url: str = ""
    commands: list[str] = field(init=False)

    def __post_init__(self) -> None:
        lines = [shlex.join(command_line(pid)) for pid in self.roots.values()]
        # The key that manages this Triton must not be saved.
        self.commands = [re.sub(rf"({KEY_HEADER}=)\w+", r"\1...", line) for line in lines]


def groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Targets in the order given; the endpoints of this stack together, as one start serves them."""
    ours = tuple(name for name in names if name in ENDPOINTS)
    return [ours if name in ENDPOINTS else (name,) for name in names if name not in ENDPOINTS or name == ours[0]]


# Waits until a target that has been spawned is ready.
Ready = Callable[[], RunningTarget]


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts targets.

    stack: makes a stack, not started yet; the other targets take its engine's options and environment. model: the whole
    checkpoint for `vllm serve`. flags: only for `vllm serve`. folder: for logs.
    """

    stack: Callable[[], Stack]
    model: str
    flags: Sequence[str]
    folder: Path

    @contextmanager
    def start(self, names: Sequence[str]) -> Iterator[RunningTarget]:
        """Start one of `groups` and wait until it is ready."""
        with self._spawn(names) as ready:
            yield ready()

    @contextmanager
    def start_all(self, order: Sequence[Sequence[str]], *, at_once: bool) -> Iterator[dict[str, RunningTarget]]:
        """Start all `groups`, at once or one after the other; yields them by the names of their targets."""
        with ExitStack() as entered:
            spawned: list[Ready] = []
            for names in order:
                ready = entered.enter_context(self._spawn(names))
                if not at_once:
                    target = ready()
                    ready = _already(target)
                spawned.append(ready)
            # This stack's own start waits until it is ready: the others load meanwhile.
            waiting = sorted(zip(order, spawned, strict=True), key=lambda one: one[0][0] not in ENDPOINTS)
            yield {name: target for names, target in [(names, ready()) for names, ready in waiting] for name in names}

    def _spawn(self, names: Sequence[str]) -> AbstractContextManager[Ready]:
        if names[0] in ENDPOINTS:
            return _stack(names, self.stack())
        if names[0] == "engine":
            return _engine(self.stack(), self.folder / "engine.log")
        return _vllm_serve(names[0], self)


def _already(target: RunningTarget) -> Ready:
    return lambda: target


@contextmanager
def _stack(names: Sequence[str], stack: Stack) -> Iterator[Ready]:
    with ExitStack() as started:

        def ready() -> RunningTarget:
            begun = time.monotonic()
            started.enter_context(stack)
            took = time.monotonic() - begun
            addresses = {name: stack.url if name == "triton-chat" else stack.grpc_url for name in names}
            loads = {name: _client_load(Endpoint(ENDPOINTS[name], addresses[name], NAME)) for name in names}
            about = httpx.get(f"{stack.triton_http_url}/v2", timeout=30).json()
            roots = {part.name: part.pid for part in stack.parts}
            return RunningTarget(loads, roots, took, about.get("version"), stack.url)

        yield ready


@contextmanager
def _vllm_serve(name: str, starter: Starter) -> Iterator[Ready]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, stack = f"http://127.0.0.1:{port}", starter.stack()
    place = ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    options = [*place, *vllm_flags(engine_options(stack)), *peer_flags(name), *starter.flags]
    log = starter.folder / f"{name.replace(':', '-')}.log"
    begun = time.monotonic()
    with _part("API server", [*vllm_serve(starter.model), *options], stack, log, peer_environment(name)) as part:

        def ready() -> RunningTarget:
            _wait(part, lambda: _healthy(url))
            took = time.monotonic() - begun
            loads = {name: _client_load(Endpoint("http", url, NAME))}
            return RunningTarget(loads, {part.name: part.pid}, took, url=url)

        yield ready


@contextmanager
def _engine(stack: Stack, log: Path) -> Iterator[Ready]:
    options = {"model": str(stack.model.checkpoint.path), **engine_options(stack)}
    with tempfile.TemporaryDirectory(prefix="triton_chat_bench_") as folder, socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{folder}/socket")
        door.listen(1)
        command = [*python_command("scripts.bench.offline_engine"), f"{folder}/socket", json.dumps(options)]
        begun = time.monotonic()
        with _part("engine loop", command, stack, log) as part, ExitStack() as opened:

            def ready() -> RunningTarget:
                connection = opened.enter_context(_accept(door, part))
                _receive(connection, part)
                took = time.monotonic() - begun
                return RunningTarget({"engine": _engine_load(connection, part)}, {part.name: part.pid}, took)

            yield ready


def token_rate_flags(rate: float) -> list[str]:
    """Flags of `triton-chat serve` that replace the model by the token-rate engine. rate: tokens/s of each stream."""
    return ["--engine", TOKEN_RATE_ENGINE, "--token-rate", f"{rate:g}"]


def engine_options(stack: Stack) -> dict[str, Any]:
    """The engine's options in the stack, including those that the launcher adds."""
    environment = stack.engine_environment
    options: dict[str, Any] = json.loads(environment["TRITON_CHAT_ENGINE_OPTIONS"])
    # Of an embedding model vLLM itself finds the length.
    length = environment["TRITON_CHAT_MAX_MODEL_LEN"]
    return options | ({"max_model_len": int(length)} if length else {})


def vllm_flags(options: Mapping[str, Any]) -> list[str]:
    """Convert engine options to flags of `vllm serve`."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            flags += [f"--{flag}", *map(str, value)]
        else:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


def _client_load(endpoint: Endpoint) -> Load:
    return lambda streams, processes, measuring: run(endpoint, streams, processes, measuring)


def _engine_load(connection: Connection, part: ChildProcess) -> Load:
    def load(streams: Sequence[Stream], processes: int, measuring: Callable[[], None]) -> Outcome:
        connection.send([Stream((), stream.warmup) for stream in streams])
        _receive(connection, part)
        measuring()
        connection.send([replace(stream, warmup=()) for stream in streams])
        return Outcome(_receive(connection, part))

    return load


@contextmanager
def _part(
    name: str, command: Sequence[str], stack: Stack, log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[ChildProcess]:
    # The environment of the stack's engine, so that all engines are configured alike.
    part = ChildProcess(name, command, stack.engine_environment | dict(variables or {}), log)
    try:
        yield part
    finally:
        part.stop(30.0)


def _wait(part: ChildProcess, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        _check(part)
        if time.monotonic() > end:
            raise LaunchError(f"{part.name} was not ready after {READY_TIMEOUT_S:g} s; its log is {part.log_path}.")
        time.sleep(0.5)


def _check(part: ChildProcess) -> None:
    """Raises LaunchError with the log's last lines if the part has ended."""
    if part.exit_status() is not None:
        what = f"{part.name} ended with status {part.exit_status()}; its log is {part.log_path}."
        raise LaunchError(what, "", tuple(part.lines()[-20:]))


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _accept(door: socket.socket, part: ChildProcess) -> Connection:
    """Wait for the engine's connection, which it opens before it loads."""
    door.settimeout(0.5)
    found: list[Connection] = []

    def accepted() -> bool:
        try:
            found.append(Connection(door.accept()[0].detach()))
        except TimeoutError:
            return False
        return True

    _wait(part, accepted)
    return found[0]


def _receive(connection: Connection, part: ChildProcess) -> Any:
    while not connection.poll(0.5):
        _check(part)
    try:
        return connection.recv()
    except EOFError:
        part.stop(5.0)
        _check(part)
        raise
