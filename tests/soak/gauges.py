# SPDX-License-Identifier: Apache-2.0
"""Read a stack's gauges and the memory of its processes."""

import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from scripts.launcher import Stack

# Gauges that must be 0 when no request is in progress.
AT_REST = (
    "triton_chat_in_flight",
    "triton_chat_queued",
    "triton_chat_engine_running",
    "triton_chat_engine_waiting",
    "triton_chat_engine_kv_cache_usage",
    "triton_chat_postprocessing_streams",
)
_SAMPLE = re.compile(r"^(triton_chat_\w+)(?:\{([^}]*)\})? ([0-9.eE+-]+)$", re.MULTILINE)
# The memory of common/shared_bytes.py.
_MEMFD = "/memfd:triton_chat_bytes"
_MODEL = re.compile(r'(?:^|,)model="([^"]*)"')


def read_gauges(stack: Stack) -> dict[str, float]:
    """Sum this project's samples by name, from the frontend's and Triton's metrics.

    Triton goes on to show the last values of models that have died or were unloaded; those are left out.
    """
    # The frontend may repeat Triton's metrics.
    own, tritons = (httpx.get(url, timeout=30).text for url in (f"{stack.url}/metrics", stack.metrics_url))
    named = {model[1] for _, labels, _ in _SAMPLE.findall(tritons) if (model := _MODEL.search(labels))}
    return sum_gauges(own, None) | sum_gauges(tritons, {model for model in named if _is_ready(stack, model)})


def _is_ready(stack: Stack, model: str) -> bool:
    return httpx.get(f"{stack.triton_http_url}/v2/models/{model}/ready", timeout=30).status_code == 200


def sum_gauges(text: str, models: Collection[str] | None) -> dict[str, float]:
    """Sum this project's samples by name. models: samples of other models are left out; None takes all."""
    values: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        model = _MODEL.search(labels)
        counts = models is None or model is None or model[1] in models
        values[name] = values.get(name, 0.0) + (float(value) if counts else 0.0)
    return values


def busy(gauges: Mapping[str, float]) -> dict[str, float]:
    """The gauges of AT_REST that are missing or not 0."""
    return {name: gauges.get(name, float("nan")) for name in AT_REST if gauges.get(name) != 0}


def wait_at_rest(stack: Stack, seconds: float, read: Callable[[Stack], dict[str, float]] = read_gauges) -> None:
    """Wait until no request is in progress; raises TimeoutError naming the gauges that are not 0."""
    end = time.monotonic() + seconds
    while left := busy(read(stack)):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s still in progress: {left}")
        time.sleep(0.2)


def memory(stack: Stack) -> dict[str, float]:
    """Memory of each process of a stack that it does not share (USS), in MiB by role."""
    return _by_role(stack, lambda process: process.memory_full_info().uss / 2**20)


def shared_memory(stack: Stack) -> dict[str, float]:
    """What the processes of a stack share: MiB of all in use (PSS, which counts shared pages once), the files of memory
    that has no name (memfd) and its mappings by role, and all open files.
    """
    files = _by_role(stack, lambda process: sum(link.startswith(_MEMFD) for link in _links(process)))
    mapped = _by_role(stack, lambda process: sum(one.path.startswith(_MEMFD) for one in process.memory_maps(False)))
    return {
        "all, PSS": sum(_by_role(stack, lambda process: process.memory_full_info().pss / 2**20).values()),
        **{f"memfds of {role}": count for role, count in files.items() if role == "preprocessing"},
        **{f"mapped in {role}": count for role, count in mapped.items() if role in ("preprocessing", "tensorrt_llm")},
        "open files": sum(_by_role(stack, psutil.Process.num_fds).values()),
    }


def _links(process: psutil.Process) -> Iterator[str]:
    """What the open files of a process are."""
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):  # It may be closed meanwhile.
            yield os.readlink(file)


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """Seconds that the living processes of a stack have used a core so far, by role."""
    return _by_role(stack, lambda process: sum(process.cpu_times()[:2]))


def _by_role(stack: Stack, read: Callable[[psutil.Process], float]) -> dict[str, float]:
    """Sum what is read of each process of a stack by the process's role."""
    values: dict[str, float] = {}
    for part in stack.parts:
        for process in _processes(part.pid):
            # It may end meanwhile.
            with suppress(psutil.Error):
                name = part.name if process.pid == part.pid else process_name(process)
                values[name] = values.get(name, 0.0) + read(process)
    return values


def _processes(pid: int) -> list[psutil.Process]:
    """A process and all below it; none if it has ended."""
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def process_name(process: psutil.Process) -> str:
    """Return the role of a child process: the model of a stub, which is in its arguments, else the program's name."""
    arguments = process.cmdline()
    model = next((path for path in arguments if path.endswith("/1/model.py")), None)
    return Path(model).parents[1].name if model else process.name()
