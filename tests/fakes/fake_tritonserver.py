#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A fake tritonserver that logs and behaves as the variable FAKE_TRITONSERVER says; it never serves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LOADING = 'I1121 05:02:44.674597 1 model_lifecycle.cc:472] "loading: {0}:1"'
LOADED = "I1121 05:02:47.651951 1 model_lifecycle.cc:839] \"successfully loaded '{0}'\""
UNKNOWN = (
    "E1121 05:02:47.651951 1 model_lifecycle.cc:641] \"failed to load 'tensorrt_llm' version 1: Internal: ValueError: "
    "unknown engine option 'tensor_paralel_size'; known: dtype, tensor_parallel_size\""
)
UNHEALTHY = (
    "E1121 05:02:47.651951 1 model_lifecycle.cc:641] \"failed to load 'tensorrt_llm' version 1: Internal: "
    "Stub process 'tensorrt_llm_0_0' is not healthy.\""
)


def say(line: str) -> None:
    # One write per line, as the models' processes write to the same pipe.
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def refuse() -> None:
    """Fail as the engine does for an option that it does not have."""
    say(LOADING.format("tensorrt_llm"))
    say(UNKNOWN)
    sys.exit(1)


def load_forever() -> None:
    """Load one model and hang in the other, with a child process; both ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "120"])
    for name in ("preprocessing", "tensorrt_llm"):
        say(LOADING.format(name))
    say(LOADED.format("preprocessing"))
    time.sleep(120)


def be_killed() -> None:
    """End as if killed by the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """End as after a failed assertion."""
    say("crashing")
    os.abort()


def find_unhealthy() -> None:
    """Fail to load one model, whose process stood still, and go on loading the other."""
    say(UNHEALTHY)
    time.sleep(120)


def run_out_of_memory() -> None:
    """Fail to load one model, whose process ended for want of memory."""
    say("MemoryError")
    say(UNHEALTHY)
    sys.exit(1)


def give_up() -> None:
    """Wait for the end of a process named like the stub, which lives on, and fail when it has ended."""
    say("giving up")
    model = Path(os.environ["FAKE_MODELS"]) / "preprocessing" / "1" / "model.py"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_text("read never\n")
    stub = model.with_name("triton_python_backend_stub")
    if not stub.exists():
        stub.symlink_to("/bin/bash")
    subprocess.Popen([stub, model], stdin=subprocess.PIPE).wait()
    say(UNHEALTHY.replace("tensorrt_llm", "preprocessing"))
    sys.exit(1)


def keep_models() -> None:
    """Run two models as Triton does: a process named like the stub for each, which is not reaped when it dies.

    The file "unhealthy" makes one start fail.
    """
    folder = Path(os.environ["FAKE_MODELS"])
    if (once := folder / "unhealthy").exists():
        once.unlink()
        find_unhealthy()
    stub = folder / "triton_python_backend_stub"
    if not stub.exists():
        stub.symlink_to("/bin/bash")
    for name in ("preprocessing", "tensorrt_llm"):
        model = folder / name / "1" / "model.py"
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_text("echo model up\nread never\n")
        # Its input is a pipe that stays open and empty.
        process = subprocess.Popen([stub, model], stdin=subprocess.PIPE)
        say(f"{name} is {process.pid}")
        KEPT.append(process)
    time.sleep(120)


KEPT: list[subprocess.Popen[bytes]] = []
BEHAVIOURS = {
    "refuse": refuse,
    "load_forever": load_forever,
    "be_killed": be_killed,
    "crash": crash,
    "find_unhealthy": find_unhealthy,
    "run_out_of_memory": run_out_of_memory,
    "give_up": give_up,
    "keep_models": keep_models,
}

if __name__ == "__main__":
    BEHAVIOURS[os.environ["FAKE_TRITONSERVER"]]()
