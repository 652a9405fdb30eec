# SPDX-License-Identifier: Apache-2.0
"""Explain from the log of a failed part what went wrong and how to fix it."""

import re
import signal
from collections.abc import Sequence

from triton_chat import PACKAGES

# The beginning of an explanation.
TAKEN_FOR_DEAD = "Triton took a model's process for dead"
# The first pattern that matches a line explains the failure; {0} is its group.
PATTERNS: tuple[tuple[str, str], ...] = (
    (r"Poll failed for model directory '([^']+)': ([^\"]+)", "The config of model {0} cannot be used: {1}."),
    (r"unknown engine '([^']+)'; known: ([^\"]+)", "There is no engine '{0}' for --engine. Known: trtllm, {1}."),
    (r"unknown engine option (.+)", "The engine has no option {0}. Check the flags that are not the launcher's own."),
    (
        r"error while loading shared libraries: (libpython\S+):",
        "The Python backend's stub did not find {0}. Use a Python with a shared library (`make setup` says how).",
    ),
    (
        r"error while loading shared libraries: (\S+):",
        "The shared library {0} is missing. With the embedded tritonserver run `make setup` again.",
    ),
    (
        r"numpy\.core\.multiarray failed to import|compiled using NumPy 1\.x",
        "numpy 2 is in the environment; numpy 1.26.4 is needed.",
    ),
    (
        rf"No module named '((?:{'|'.join(PACKAGES)})\b\S*)'",
        "The package {0} is not installed here. Run `make setup`.",
    ),
    (
        r"No module named '(\S+)'",
        "The Python package {0} is missing. Run `make setup`, or install it where python3 on PATH finds it.",
    ),
    (
        r"Could not load this library: \S*/(torch\w+)/",
        "The package {0} does not fit the torch that is installed. `triton-chat doctor` says what to do.",
    ),
    (
        r"(?:CUDA out of memory|OutOfMemoryError)",
        "The GPU has too little free memory. Lower --gpu-memory-utilization or --max-model-len, or use more GPUs "
        "(--tensor-parallel-size).",
    ),
    (
        r"Free memory on device .* is less than desired GPU memory utilization",
        "Something else uses the GPU's memory. Lower --gpu-memory-utilization.",
    ),
    (
        r"max seq(?:uence)? len\w* \(?(\d+)\)?.*KV cache|KV cache.*max seq(?:uence)? len\w* \(?(\d+)\)?",
        "The KV cache cannot hold one request of full length. Lower --max-model-len, or give it more memory "
        "(--gpu-memory-utilization; VLLM_CPU_KVCACHE_SPACE in GiB on CPU).",
    ),
    (
        r"User-specified max_model_len \((\d+)\) is greater",
        "The checkpoint's context is shorter than --max-model-len {0}. Lower it.",
    ),
    (
        r"(?:GPT\) model path at|tokenizer info path at) (\S+) does not exist",
        "TensorRT-LLM's backend finds no {0}. Give --engine-dir, or mount the engine there.",
    ),
    (r"Model architectures (\[.+?\]) are not supported", "The engine does not know the architecture {0}."),
    (r"trust_remote_code=True", "The checkpoint brings code of its own. If you trust it, add --trust-remote-code."),
    (
        r"MemoryError|Cannot allocate memory|std::bad_alloc",
        "There is too little memory. Choose a smaller model or a smaller VLLM_CPU_KVCACHE_SPACE (GiB).",
    ),
    (r"No space left on device", "A disk is full; Triton's Python backend also needs free space in /dev/shm."),
    (
        r"(?:[Uu]nable to|[Ff]ailed to) (?:create|initialize|open|increase).*shared memory",
        "Shared memory is short: in a container start it with --shm-size=1g or --ipc=host.",
    ),
    (
        r"Address already in use|failed to start (?:\S+ )?(?:service|server)",
        "A port is taken. Choose others: --port, --triton-http-port, --triton-grpc-port, --triton-metrics-port; "
        "0 picks one.",
    ),
    (
        r"Not enough allowed NUMA nodes to bind threads of (\d+)",
        "On CPUs vLLM requires a NUMA node for each of its {0} workers. Name the cores of each one, for two of them: "
        "VLLM_CPU_OMP_THREADS_BIND='0-3|4-7'.",
    ),
    (
        r"config parameter '(\S+)' is empty",
        "The model repository's parameter {0} is empty: its TRITON_CHAT_ variable is not set.",
    ),
    (r"^(?:error: )?(\S+=.+: expected .+?)\.?$", "The frontend cannot use a setting: {0}."),
    # Lines of vLLM's processes, of which tritonserver reports only that one failed.
    (
        r"^\((?:EngineCore|Worker)\S* pid=\d+\) (?:ERROR [^\]]*\] )?([\w.]*(?:Error|Exception): .+)",
        "The engine failed: {0}",
    ),
    (
        r"Stub process '([\w.-]+?)_\d+_\d+' is not healthy",
        f"{TAKEN_FOR_DEAD} ({{0}}): it stood still for a second, as on a machine that is short of CPU time or memory, "
        "or it ended.",
    ),
    (
        r"Failed to obtain the health mutex|interprocess::lock_exception",
        f"{TAKEN_FOR_DEAD}, which stood still for a second, as on a machine that is short of CPU time or memory.",
    ),
    # The last resort: what tritonserver itself logs of a model.
    (r"failed to load '([^']+)' version \d+: (.+?)\"?$", "Model {0} failed: {1}"),
    # Last, as some refusals of options have a better explanation.
    (r"engine options? (\(\w+\): [^\"]+|'\w+' must be [^\"]+)", "The engine refuses an option {0}."),
)
# Warnings are about missing optional things, which is not why something failed.
_HARMLESS = re.compile(r"^W\d{4} |\b(?:WARNING|INFO)\b")
_COMPILED = tuple((re.compile(pattern), words) for pattern, words in PATTERNS)


def explain(lines: Sequence[str]) -> str | None:
    """Explain a failed part's log by the first entry of the table that matches; None if none does."""
    relevant = [line for line in lines if not _HARMLESS.search(line)]
    for pattern, words in _COMPILED:
        for line in relevant:
            found = pattern.search(line)
            if found:
                return words.format(*(group or "" for group in found.groups()))
    return None


def describe_exit(status: int) -> str:
    """Describe an exit status of subprocess, in which a signal is a negative number."""
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name
    if -status == signal.SIGKILL:
        return f"was ended by {name}; if nobody did that, the system ran out of memory (see `dmesg`)"
    return f"was ended by {name}"
