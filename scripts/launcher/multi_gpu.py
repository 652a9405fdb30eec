# SPDX-License-Identifier: Apache-2.0
"""One model on several GPUs: check their number, and run TensorRT-LLM's processes under mpirun."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.launcher.environment import TritonServer, gpu_count, visible_gpus
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import BACKEND, BACKENDS, MODEL

# vLLM's own, since 0.32.
DEFAULT_UTILIZATION = 0.92
_VLLM_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
# With these, GPUs of other machines count as well.
_VLLM_ELSEWHERE = ("nnodes", "data_parallel_backend", "data_parallel_size_local")
# Open MPI 4 and 5 read the machines of their ranks from the file in these variables; GPUs there cannot be checked here.
_HOST_FILES = ("OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile")
_SHARED_MEMORY = "--backend-config=python,shm-region-prefix-name="


def check_gpus(needed: int, environment: Mapping[str, str], why: str) -> None:
    """Check that enough GPUs can be used; raises LaunchError. why: the subject of its message."""
    found = gpu_count(environment)
    if found < needed:
        hint = "CUDA_VISIBLE_DEVICES hides the others." if "CUDA_VISIBLE_DEVICES" in environment else ""
        raise LaunchError(f"{why} needs {needed} GPU{'s' * (needed > 1)}, and {found} can be used here.", hint)


def check_vllm_gpus(engine: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Check the GPUs that vLLM's options need. Without any GPU vLLM runs its ranks on the CPU."""
    ray = engine.get("distributed_executor_backend") == "ray" or any(name in engine for name in _VLLM_ELSEWHERE)
    if ray or gpu_count(environment) == 0:
        return
    sizes = {name: value for name in _VLLM_SIZES if isinstance(value := engine.get(name), int)}
    needed = 1
    for size in sizes.values():
        needed *= size
    check_gpus(needed, environment, " x ".join(f"--{name.replace('_', '-')} {size}" for name, size in sizes.items()))


def gpus_of(engine: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """The GPUs that vLLM takes with these options: the first of those that it sees."""
    needed = 1
    for name in _VLLM_SIZES:
        size = engine.get(name, 1)
        needed *= size if isinstance(size, int) else 1
    return visible_gpus(environment)[:needed]


def check_shares(shares: Mapping[str, tuple[float, Sequence[str]]]) -> None:
    """Check that the models of each GPU fit on it together; raises LaunchError.

    shares: model -> the part of each GPU's memory that it takes, and its GPUs.
    """
    for gpu in sorted({gpu for _, gpus in shares.values() for gpu in gpus}):
        here = {name: share for name, (share, gpus) in shares.items() if gpu in gpus}
        if len(here) > 1 and round(sum(here.values()), 6) > 1:
            parts = " + ".join(f"{share:g} ({name})" for name, share in here.items())
            raise LaunchError(
                f"GPU {gpu} is to be shared, and gpu_memory_utilization adds up to more than 1: {parts}.",
                f"Set gpu_memory_utilization of each ({DEFAULT_UTILIZATION:g} without it), or give them `devices` of "
                "their own.",
            )


def check_trtllm(server: TritonServer, options: LaunchOptions, world_size: int, environment: Mapping[str, str]) -> None:
    """Check that this tritonserver and machine can run the C++ backend on so many GPUs; raises LaunchError."""
    folder = server.binary.resolve().parent.parent / BACKENDS / BACKEND
    if not folder.is_dir():
        raise LaunchError(
            f"{server.binary} has no backend {BACKEND} ({folder}).",
            "Use the Triton image with TensorRT-LLM, or name its tritonserver with --triton.",
        )
    if not any(environment.get(name) for name in _HOST_FILES):
        check_gpus(world_size, environment, "the engine")
    if needs_mpirun(options, world_size) and shutil.which("mpirun", path=environment.get("PATH")) is None:
        raise LaunchError(
            f"mpirun is missing, which starts the engine's {world_size} processes.",
            "The Triton image with TensorRT-LLM has it; elsewhere install Open MPI, or add it to PATH.",
        )


def needs_mpirun(options: LaunchOptions, world_size: int) -> bool:
    """Whether mpirun is needed: for several processes, or for one that starts others."""
    return world_size > 1 or options.mpi_mode == "orchestrator"


def parallel_command(command: Sequence[str], options: LaunchOptions, world_size: int) -> list[str]:
    """Make tritonserver's command line under mpirun.

    leader: a tritonserver for each rank; the first serves, the others load nothing but their rank of the engine and
    open no port. orchestrator: one tritonserver, which starts worker processes itself.
    """
    if not needs_mpirun(options, world_size):
        return list(command)
    mpirun = ["mpirun", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    if options.mpi_mode == "orchestrator":
        # Memory that tritonserver holds on the GPUs would be the workers'.
        pools = [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(world_size)]
        return [*mpirun, "-n", "1", *command, "--pinned-memory-pool-byte-size=0", "--enable-peer-access=false", *pools]
    ranks = [["-n", "1", *command]]
    ranks += [["-n", "1", *(_of_rank(flag, rank) for flag in command)] for rank in range(1, world_size)]
    return [*mpirun, *ranks[0], *(word for rank in ranks[1:] for word in (":", *rank))]


def orchestrator_environment(options: LaunchOptions) -> dict[str, str]:
    """What the backend reads to be an orchestrator."""
    if options.mpi_mode != "orchestrator":
        return {}
    return {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"}


def _of_rank(flag: str, rank: int) -> str:
    if flag == "--load-model=*":
        return f"--load-model={MODEL}"
    return f"{flag}rank{rank}_" if flag.startswith(_SHARED_MEMORY) else flag
