# SPDX-License-Identifier: Apache-2.0
"""Import vLLM for its processes while the model's own process imports it, and once for all of them.

A server of Python's multiprocessing imports vLLM, and is forked when vLLM starts the engine core and the worker. It is
the program python3, as which torch is faster than in the model's process, and computes nothing before. Only for vLLM on
CPUs: a process that has used CUDA cannot be forked.
"""

import glob
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import forkserver, popen_spawn_posix, resource_tracker, spawn
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

_PRELOADED = "engines.vllm.preloaded"
# Set by vLLM for the worker, and read where they are used; all others may be read by a library at its import.
_READ_LATE = re.compile("VLLM_|LOCAL_WORLD_SIZE$|NUMEXPR_MAX_THREADS$")
# Where vLLM finds the libraries that its worker is started with.
_LIBRARIES = ("vllm/libs/libtcmalloc_minimal*.so*", "torch.libs/libgomp*.so*", "torch/lib/libgomp*.so*")
# While the server can be asked for processes. It is removed at the end of this process at the latest.
_socket_folder: tempfile.TemporaryDirectory[str] | None = None


def start() -> None:
    """Start the server if vLLM runs on CPUs, as the launcher says by VLLM_TARGET_DEVICE; returns at once.

    Not if this process has imported vLLM: it would wait for the server.
    """
    global _socket_folder
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu" and "vllm" not in sys.modules:
        multiprocessing.set_forkserver_preload([_PRELOADED])
        # Not in the environment below.
        resource_tracker.ensure_running()
        _socket_folder = tempfile.TemporaryDirectory(prefix="triton_chat_vllm_", ignore_cleanup_errors=True)
        address = str(Path(_socket_folder.name) / "socket")
        with (
            mock.patch.dict(os.environ, _worker_environment(os.environ)),
            mock.patch("multiprocessing.connection.arbitrary_address", lambda family: address),
        ):
            forkserver.ensure_running()


@contextmanager
def engine_core_from_server() -> Iterator[None]:
    """Let vLLM take its engine core from the server inside this context, if there is one."""
    global _socket_folder
    if _socket_folder is None:
        yield
        return
    try:
        with mock.patch("vllm.v1.engine.utils.get_mp_context", Context):
            yield
    finally:
        # Now, because this process can be killed later.
        _socket_folder.cleanup()
        _socket_folder = None


def serve_workers(environment: Mapping[str, str]) -> None:
    """Let vLLM take its worker from this server, too; to be called in it. environment: its own after the imports."""
    from vllm.v1.executor import multiproc_executor

    _Process.at_start = dict(environment)
    multiproc_executor.get_mp_context = Context  # type: ignore[attr-defined]


def _worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What vLLM will add to the environment of its one worker, as far as libraries read it when they are loaded.

    vLLM decides that when it has read the model. Where it decides otherwise, the worker is not forked (`_Process`).
    """
    torch = find_spec("torch")
    packages = Path(str(torch and torch.origin)).parent.parent
    tcmalloc, *openmp = [next(iter(glob.glob(str(packages / pattern))), "") for pattern in _LIBRARIES]
    preload = ":".join(filter(None, [tcmalloc, environment.get("LD_PRELOAD"), next(filter(None, openmp), "")]))
    added = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1", "LD_PRELOAD": preload}
    cores = environment.get("VLLM_CPU_OMP_THREADS_BIND", "")
    if re.fullmatch(r"\d+(,\d+)*", cores):
        count = len(cores.split(","))
        added |= {"OMP_NUM_THREADS": str(count), "GOMP_CPU_AFFINITY": cores.replace(",", " ")}
    return added


class _Process(ForkServerProcess):
    """A process with the environment and the cores that its parent has when it creates it, not the server's.

    It is spawned, not forked, if libraries would have read another environment than the server had.
    """

    # In processes of the server: its environment.
    at_start: Mapping[str, str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._environment: dict[str, str] | None = None
        self._cores: set[int] | None = None

    @staticmethod
    def _Popen(process: Any) -> Any:
        at_start = _Process.at_start
        other = at_start is not None and _early(at_start) != _early(os.environ)
        # vLLM binds processes to NUMA nodes by another program in the place of Python.
        if other or os.fsdecode(spawn.get_executable()) != sys.executable:
            return popen_spawn_posix.Popen(process)
        process._environment = dict(os.environ)
        # The worker's are those to which OpenMP bound the server.
        process._cores = None if at_start is not None else os.sched_getaffinity(0)
        return ForkServerProcess._Popen(process)

    def run(self) -> None:
        if self._environment is not None:
            # Only what differs: the name that vLLM gives the process takes the place of an environment as it was
            # started.
            for name in os.environ.keys() - self._environment.keys():
                del os.environ[name]
            changed = {name: value for name, value in self._environment.items() if os.environ.get(name) != value}
            os.environ.update(changed)
            if self._cores is not None:
                os.sched_setaffinity(0, self._cores)
            # The server of this process's parent, where Python would start a second one.
            forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
        super().run()


class Context(ForkServerContext):
    """Multiprocessing with processes of the server."""

    Process = _Process


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not _READ_LATE.match(name)}
