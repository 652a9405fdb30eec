# SPDX-License-Identifier: Apache-2.0
"""What is measured, started and stopped: this stack with its three taps, `vllm serve`, and the engine alone."""

import json
import re
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from scripts.bench.load import Outcome, Target, run
from scripts.bench.processes import command_line
from scripts.bench.questions import Stream
from scripts.launcher import LaunchError, Stack
from scripts.launcher.processes import Part
from scripts.launcher.repository import KEY_HEADER

NAME = "bench"
READY_TIMEOUT_S = 1800.0
# Name on the command line -> the tap of one start of this stack.
TAPS: Mapping[str, str] = {"triton-chat": "http", "ensemble": "ensemble", "tensorrt_llm": "tensorrt_llm"}
CONTENDERS = (*TAPS, "engine", "vllm-serve")

Load = Callable[[Sequence[Stream], int, Callable[[], None]], Outcome]


@dataclass(slots=True)
class Started:
    """A running contender, or several that are taps of one stack.

    loads: name -> runs streams in so many client processes. roots: process ids by role.
    """

    loads: dict[str, Load]
    roots: dict[str, int]
    started_s: float
    tritonserver: str | None = None
    commands: list[str] = field(init=False)

    def __post_init__(self) -> None:
        lines = [shlex.join(command_line(pid)) for pid in self.roots.values()]
        # The key to manage this one Triton is nobody else's.
        self.commands = [re.sub(rf"({KEY_HEADER}=)\w+", r"\1...", line) for line in lines]


def groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Contenders in the order given, those of one start of this stack together."""
    taps = tuple(name for name in names if name in TAPS)
    return [taps if name in TAPS else (name,) for name in names if name not in TAPS or name == taps[0]]


@contextmanager
def started(names: Sequence[str], stack: Stack, model: str, flags: Sequence[str], folder: Path) -> Iterator[Started]:
    """Start one of `groups`. stack: not started yet; the others take its engine's options and environment.

    model: the whole checkpoint for `vllm serve`. flags: for `vllm serve` alone. folder: for logs.
    """
    if names[0] in TAPS:
        with _stack(names, stack) as running:
            yield running
    elif names[0] == "engine":
        with _engine(stack, folder / "engine.log") as running:
            yield running
    else:
        with _vllm_serve(stack, model, flags, folder / "vllm-serve.log") as running:
            yield running


@contextmanager
def _stack(names: Sequence[str], stack: Stack) -> Iterator[Started]:
    begun = time.monotonic()
    with stack:
        took = time.monotonic() - begun
        addresses = {name: stack.url if name == "triton-chat" else stack.grpc_url for name in names}
        loads = {name: _client_load(Target(TAPS[name], addresses[name], NAME)) for name in names}
        about = httpx.get(f"{stack.triton_http_url}/v2", timeout=30).json()
        yield Started(loads, {part.name: part.pid for part in stack.parts}, took, about.get("version"))


@contextmanager
def _vllm_serve(stack: Stack, model: str, flags: Sequence[str], log: Path) -> Iterator[Started]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    place = ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    command = [*vllm_serve(model), *place, *vllm_flags(engine_options(stack)), *flags]
    begun = time.monotonic()
    with _part("API server", command, stack, log) as part:
        _wait(part, lambda: _healthy(url))
        took = time.monotonic() - begun
        yield Started({"vllm-serve": _client_load(Target("http", url, NAME))}, {part.name: part.pid}, took)


@contextmanager
def _engine(stack: Stack, log: Path) -> Iterator[Started]:
    options = {"model": str(stack.model.checkpoint.path), **engine_options(stack)}
    with tempfile.TemporaryDirectory(prefix="triton_chat_bench_") as folder, socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{folder}/socket")
        door.listen(1)
        command = [sys.executable, "-m", "scripts.bench.offline_engine", f"{folder}/socket", json.dumps(options)]
        begun = time.monotonic()
        with _part("engine loop", command, stack, log) as part:
            connection = _accept(door, part)
            _receive(connection, part)
            took = time.monotonic() - begun
            with connection:
                loads = {"engine": _engine_load(connection, part)}
                yield Started(loads, {part.name: part.pid}, took)


def vllm_serve(model: str) -> list[str]:
    """The beginning of its command line. vLLM's CPU build has another name, with which `vllm` itself does not run."""
    try:
        version("vllm")
    except PackageNotFoundError:
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]


def engine_options(stack: Stack) -> dict[str, Any]:
    """The engine's options in the stack, those that the launcher adds included."""
    environment = stack.engine_environment
    options: dict[str, Any] = json.loads(environment["TRITON_CHAT_ENGINE_OPTIONS"])
    return options | {"max_model_len": int(environment["TRITON_CHAT_MAX_MODEL_LEN"])}


def vllm_flags(options: Mapping[str, Any]) -> list[str]:
    """Engine options as flags of `vllm serve`."""
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


def _client_load(target: Target) -> Load:
    return lambda streams, processes, measuring: run(target, streams, processes, measuring)


def _engine_load(connection: Connection, part: Part) -> Load:
    def load(streams: Sequence[Stream], processes: int, measuring: Callable[[], None]) -> Outcome:
        connection.send([stream.warmup for stream in streams])
        _receive(connection, part)
        measuring()
        connection.send([stream.measured for stream in streams])
        return Outcome(_receive(connection, part))

    return load


@contextmanager
def _part(name: str, command: Sequence[str], stack: Stack, log: Path) -> Iterator[Part]:
    # The engine's environment in the stack, so that all engines are set alike.
    part = Part(name, command, stack.engine_environment, log)
    try:
        yield part
    finally:
        part.stop(30.0)


def _wait(part: Part, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        _check(part)
        if time.monotonic() > end:
            raise LaunchError(f"{part.name} was not ready after {READY_TIMEOUT_S:g} s; its log is {part.log_path}.")
        time.sleep(0.5)


def _check(part: Part) -> None:
    """Raises LaunchError with its last lines where a part has ended."""
    if part.exit_status() is not None:
        what = f"{part.name} ended with status {part.exit_status()}; its log is {part.log_path}."
        raise LaunchError(what, "", tuple(part.lines()[-20:]))


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _accept(door: socket.socket, part: Part) -> Connection:
    """The engine's connection, which it makes before it loads."""
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


def _receive(connection: Connection, part: Part) -> Any:
    while not connection.poll(0.5):
        _check(part)
    try:
        return connection.recv()
    except EOFError:
        part.stop(5.0)
        _check(part)
        raise
