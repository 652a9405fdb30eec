# SPDX-License-Identifier: Apache-2.0
"""The tritonserver to start, and the command line and environment of each part."""

import itertools
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.chat.template import is_text
from common.models_state import KEY_HEADER
from common.served_model import CHAT, EMBEDDING
from families.parsers.formats import AUTO, REASONING_FORMATS, resolve_reasoning_format
from scripts.launcher.engine_folder import EngineFolder
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import ServedModel, modalities
from scripts.launcher.options import LaunchOptions
from scripts.launcher.ports import Ports
from scripts.setup import fetch_tritonserver
from scripts.setup.interpreter import libpython_dir
from triton_chat import child_environment

CONTAINER_BINARY = Path("/opt/tritonserver/bin/tritonserver")
# With compilation on, vLLM's CPU build gave wrong text in bf16; eager matched Hugging Face. The type of an embedding
# model's weights is left to vLLM, as in `vllm serve`: half of the digits would be lost for little time.
CPU_ENGINE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    CHAT: {"dtype": "bfloat16", "enforce_eager": True},
    EMBEDDING: {"enforce_eager": True},
}
CPU_KV_CACHE_GIB = "2"
# Triton's APIs that change the server or access the machine's memory: only for the launcher.
MANAGEMENT = "model-repository,shared-memory,logging,trace"


@dataclass(frozen=True, slots=True)
class TritonServer:
    """A tritonserver. home: folder with the libraries and backends of the embedded one, None for any other."""

    binary: Path
    home: Path | None = None

    @property
    def embedded(self) -> bool:
        """Whether it is the one that `make setup` and `triton-chat prepare` fetch."""
        return self.home is not None


def find_triton(chosen: Path | None) -> TritonServer:
    """Find the tritonserver of --triton, else the container's, else the embedded one; raises LaunchError if none."""
    if chosen is not None:
        found = shutil.which(chosen)
        if found is None:
            raise LaunchError(f"--triton {chosen} is not a program that can be run.")
        return TritonServer(Path(found).absolute())
    if CONTAINER_BINARY.is_file():
        return TritonServer(CONTAINER_BINARY)
    home = fetch_tritonserver.home()
    binary = home / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    if not binary.is_file():
        advice = "Run `triton-chat prepare` or `make setup`, or name another with --triton."
        raise LaunchError("the embedded tritonserver is missing.", advice)
    return TritonServer(binary, home)


def triton_version(server: TritonServer) -> str | None:
    """The version of a tritonserver, as far as its files tell it."""
    if server.embedded:
        return fetch_tritonserver.TRITON_VERSION
    file = server.binary.resolve().parent.parent / "TRITON_VERSION"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def gpu_count(environment: Mapping[str, str]) -> int:
    """Number of NVIDIA GPUs that CUDA_VISIBLE_DEVICES does not hide."""
    return len(visible_gpus(environment))


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The NVIDIA GPUs that can be used, as CUDA_VISIBLE_DEVICES names them."""
    found = sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return [str(number) for number in range(found)]
    # CUDA stops at the first entry that is no device: "0,-1,1" shows one GPU.
    named = list(itertools.takewhile(lambda name: name not in ("", "-1"), shown.replace(" ", "").split(",")))
    return named[:found]


def has_gpu(environment: Mapping[str, str]) -> bool:
    """Whether there is a GPU that is not hidden."""
    return gpu_count(environment) > 0


def shared_memory_prefix(ports: Ports) -> str:
    """Prefix of the names of this stack's shared memory, by which it is removed after a SIGKILL."""
    return f"triton_chat_{os.getpid()}_{ports.grpc}_"


def triton_command(server: TritonServer, options: LaunchOptions, ports: Ports, key: str) -> list[str]:
    """The command line of tritonserver. key: the secret that allows a client to load and unload models."""
    command = [
        str(server.binary),
        f"--model-repository={options.model_repository.resolve()}",
        f"--http-address={options.triton_host}",
        f"--http-port={ports.http}",
        f"--grpc-address={options.triton_host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={options.triton_host}",
        f"--metrics-port={ports.metrics}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(ports)}",
        # Models can be loaded again, only by the launcher.
        "--model-control-mode=explicit",
        # Several are loaded by the launcher, so that one that fails leaves the others alone. Without the second flag
        # Triton would call itself not ready from then on.
        *(["--strict-readiness=false"] if options.several else ["--load-model=*"]),
        # The configs are complete. To complete them, the Python backend would start each model's process twice.
        "--disable-auto-complete-config",
        f"--http-restricted-api={MANAGEMENT}:{KEY_HEADER}={key}",
        f"--grpc-restricted-protocol={MANAGEMENT}:{KEY_HEADER}={key}",
        # The frontends drain first, so no request is left by then; an engine takes 5-10 s to end.
        "--exit-timeout-secs=20",
    ]
    if server.home is not None:
        command.append(f"--backend-directory={server.home / 'backends'}")
    if options.model_config_name:
        command.append(f"--model-config-name={options.model_config_name}")
    return command


def trace_flags(environment: Mapping[str, str]) -> list[str]:
    """Flags that let tritonserver continue the traces of requests, but begin none; empty without an endpoint."""
    endpoint = environment.get("TRITON_CHAT_OTLP_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return []
    return [
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        # One in so many requests begins a trace of its own, so practically none.
        f"--trace-config=rate={2**31 - 1}",
        f"--trace-config=opentelemetry,url={endpoint.rstrip('/')}/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=triton-chat-triton",
    ]


def frontend_command() -> list[str]:
    """The command line of one frontend process; its settings are in the environment."""
    return python_command("frontend")


def python_command(module: str) -> list[str]:
    """The beginning of the command line of a Python module that does not search the current directory for imports."""
    return [sys.executable, "-P", "-m", module]


def stack_environment(
    base: Mapping[str, str],
    options: LaunchOptions,
    model: ServedModel,
    ports: Ports,
    engine: EngineFolder | None = None,
) -> dict[str, str]:
    """The environment of all parts: `base`, the frontend's settings, and the variables of the repository's configs.

    engine: the engine of TensorRT-LLM that is served instead of the checkpoint's weights.
    """
    names = options.served_model_name or (model.name,)
    return {
        **server_environment(base, options, ports),
        "TRITON_CHAT_SERVED_MODEL_NAME": ",".join(names),
    } | model_environment(base, options, model, engine)


def server_environment(base: Mapping[str, str], options: LaunchOptions, ports: Ports) -> dict[str, str]:
    """The part of `stack_environment` that says nothing of the model."""
    triton_host = "127.0.0.1" if options.triton_host in ("0.0.0.0", "::") else options.triton_host  # nosec B104 # compares, does not bind
    return {
        **child_environment(base),
        **options.settings,
        "TRITON_CHAT_HOST": options.host,
        "TRITON_CHAT_PORT": str(ports.frontend),
        "TRITON_CHAT_TRITON_URL": f"{triton_host}:{ports.grpc}",
        "TRITON_CHAT_TRITON_METRICS_URL": f"http://{triton_host}:{ports.metrics}/metrics",
        # The stub finds its packages through the first python3 on PATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": sys.prefix,
        # The checkpoint is on disk by now: no more requests to a hub, and no usage reports.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def model_environment(
    base: Mapping[str, str], options: LaunchOptions, model: ServedModel, engine: EngineFolder | None = None
) -> dict[str, str]:
    """The part of `stack_environment` that says what one model is served with, without its names."""
    environment = {
        **options.settings,
        "TRITON_CHAT_MODEL": str(model.checkpoint.path),
        "TRITON_CHAT_MAX_MODEL_LEN": _context(options, model, engine),
        "TRITON_CHAT_MODALITIES": ",".join(modalities(model)),
    }
    if options.styler:
        environment["TRITON_CHAT_STYLER"] = options.styler
    if options.engine_name:
        environment["TRITON_CHAT_ENGINE"] = options.engine_name
    slots = options.engine.get("max_num_seqs") if engine is None else engine.max_batch_size
    if isinstance(slots, int):
        # Requests admitted beyond the engine's slots wait inside it and delay all others. Connections spread unevenly
        # over frontends that share a port: each admits half as many again as its share, so that no slot stays empty.
        share = 1.0 if options.frontends == 1 else min(1.0, 1.5 / options.frontends)
        admitted = str(max(1, math.ceil(slots * share)))
        environment.setdefault("TRITON_CHAT_MAX_IN_FLIGHT", base.get("TRITON_CHAT_MAX_IN_FLIGHT", admitted))
    return environment


def _context(options: LaunchOptions, model: ServedModel, engine: EngineFolder | None) -> str:
    """Context length: tokens of prompt and answer together. Empty if it is left to vLLM.

    Files of sentence-transformers limit that of embedding models, which vLLM reads.
    """
    if model.kind == EMBEDDING:
        return str(options.max_model_len or "")
    checkpoints = model.checkpoint.max_position_embeddings
    engines = engine.max_seq_len if engine is not None and engine.max_seq_len is not None else checkpoints
    return str(options.max_model_len or min(checkpoints, engines))


def _few_cores(engine: Mapping[str, Any]) -> str | None:
    """The cores for vLLM to use on one or two cores, of which it would leave one free; None for its own choice."""
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    cores = sorted(os.sched_getaffinity(0))
    # Workers of several ranks need a list each.
    if len(cores) > 2 or any(engine.get(size, 1) != 1 for size in sizes):
        return None
    return ",".join(map(str, cores))


def _reasoning_markers(environment: Mapping[str, str]) -> dict[str, str] | None:
    """vLLM's `reasoning_config` for the operator's reasoning parser; without one the engine finds the family's."""
    name = environment.get("TRITON_CHAT_REASONING_PARSER") or AUTO
    if name == AUTO:
        return None
    form = REASONING_FORMATS[resolve_reasoning_format(name)]
    return {"reasoning_start_str": form.open, "reasoning_end_str": form.close}


def triton_environment(
    shared: Mapping[str, str], options: LaunchOptions, server: TritonServer, kind: str = CHAT
) -> dict[str, str]:
    """The environment of tritonserver: that of the engine and, if tritonserver is embedded, its library folders."""
    environment = engine_environment(shared, options, kind)
    # Without it a model's watchdog kills a tritonserver that lost the process of a model.
    environment["TRITON_CHAT_SUPERVISED"] = str(os.getpid())
    if server.home is not None:
        folders = [server.home / "nvidia_pytriton.libs", libpython_dir(), server.home / "lib"]
        inherited = shared.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*map(str, folders), *([inherited] if inherited else [])])
    return environment


def engine_environment(shared: Mapping[str, str], options: LaunchOptions, kind: str = CHAT) -> dict[str, str]:
    """`shared` with the variables of the engine, as the processes of a model need them.

    kind: of the model, one of common.served_model.KINDS.
    """
    environment = dict(shared)
    engine = dict(options.engine)
    if not has_gpu(shared):
        environment.setdefault("VLLM_TARGET_DEVICE", "cpu")
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GIB)
        if cores := _few_cores(engine):
            environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
        if shared.get("TRITON_CHAT_ENGINE", "vllm") == "vllm":
            engine = {**CPU_ENGINE_DEFAULTS[kind], **engine}
    if kind == CHAT and shared.get("TRITON_CHAT_ENGINE", "vllm") == "vllm" and (markers := _reasoning_markers(shared)):
        engine.setdefault("reasoning_config", markers)
    environment["TRITON_CHAT_ENGINE_OPTIONS"] = json.dumps(engine)
    # tritonserver runs in a folder of its own.
    if plan := environment.get("TRITON_CHAT_VIT_ENGINE"):
        environment["TRITON_CHAT_VIT_ENGINE"] = os.path.abspath(plan)
    if (template := environment.get("TRITON_CHAT_CHAT_TEMPLATE")) and not is_text(template):
        environment["TRITON_CHAT_CHAT_TEMPLATE"] = os.path.abspath(Path(template).expanduser())
    return environment
