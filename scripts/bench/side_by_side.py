# SPDX-License-Identifier: Apache-2.0
"""Targets that are up at once, each on its share of the memory."""

import subprocess  # nosec B404 # a fixed program, no shell
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.launcher.checks import GIB, available_memory
from scripts.launcher.environment import has_gpu, visible_gpus
from scripts.launcher.multi_gpu import DEFAULT_UTILIZATION

# Memory that an engine takes beside weights and KV cache, in GiB: activations and CUDA graphs on a GPU, the processes
# themselves (also of the serving layers) on a CPU.
GPU_OVERHEAD_GIB, CPU_OVERHEAD_GIB = 1.5, 2.0
_SPACE = "VLLM_CPU_KVCACHE_SPACE"


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several targets gets.

    options: of the engine. environment: its variables. at_once: whether the targets may start at the same time:
    vLLM measures the GPU's memory to size its KV cache, and takes what others allocate meanwhile for its own.
    """

    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    at_once: bool = True


def share(count: int, weight_bytes: int, engine: Mapping[str, Any], environment: Mapping[str, str]) -> Share:
    """Divide the memory among `count` engines; raises ValueError if they do not fit.

    weight_bytes: of the model, 0 if unknown. engine, environment: of one engine that has everything.
    """
    if not has_gpu(environment):
        return _of_cpu(count, weight_bytes, environment)
    return _of_gpu(count, weight_bytes, engine, environment)


def _of_cpu(count: int, weight_bytes: int, environment: Mapping[str, str]) -> Share:
    # vLLM takes whole GiB.
    each = max(1, int(float(environment[_SPACE])) // count)
    needed = count * (weight_bytes / GIB + each + CPU_OVERHEAD_GIB)
    free = available_memory() / GIB
    if needed > free:
        raise ValueError(
            f"--side-by-side: {count} engines need about {needed:.1f} GiB of memory ({weight_bytes / GIB:.1f} GiB of "
            f"weights, {each} GiB of KV cache and {CPU_OVERHEAD_GIB:g} GiB for its processes each), and {free:.1f} GiB "
            "is available: name fewer --contenders"
        )
    return Share(environment={_SPACE: str(each)})


def _of_gpu(count: int, weight_bytes: int, engine: Mapping[str, Any], environment: Mapping[str, str]) -> Share:
    used = float(engine.get("gpu_memory_utilization", DEFAULT_UTILIZATION))
    ranks = engine.get("tensor_parallel_size", 1)
    weights = weight_bytes / GIB / (ranks if isinstance(ranks, int) else 1)
    cache = engine.get("kv_cache_memory_bytes")
    memory = _gpu_memory(visible_gpus(environment)[0])
    if memory is not None:
        total, free = memory
        each = used * total / count
        needed = weights + GPU_OVERHEAD_GIB + (float(cache) / GIB if cache is not None else 0)
        about = f"{weights:.1f} GiB of weights" + (f", {float(cache) / GIB:.1f} GiB of KV cache" if cache else "")
        if needed > each:
            raise ValueError(
                f"--side-by-side: each of {count} engines would have {each:.1f} GiB of the GPU's {total:.1f} "
                f"(--gpu-memory-utilization {used:g} in all) and needs more than {needed:.1f} ({about}): name fewer "
                "--contenders, or a smaller model"
            )
        if used * total > free:
            raise ValueError(
                f"--side-by-side: {used * total:.1f} GiB of the GPU are to be shared (--gpu-memory-utilization "
                f"{used:g}) and {free:.1f} are free: lower it, or stop what uses the GPU"
            )
    return Share({"gpu_memory_utilization": round(used / count, 4)}, at_once=cache is not None)


def _gpu_memory(gpu: str) -> tuple[float, float] | None:
    """Total and free memory of a GPU in GiB; None if nvidia-smi does not tell."""
    query = ["nvidia-smi", "-i", gpu, "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)  # nosec B603 # a fixed program
        total, free = (float(part) / 1024 for part in done.stdout.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return total, free
