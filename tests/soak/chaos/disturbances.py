# SPDX-License-Identifier: Apache-2.0
"""What is done to a stack's processes, at random: kills, stops, full and slow disks, too little memory."""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from scripts.launcher import Stack
from tests.soak.chaos.pressure import frozen_disk, full_shared_memory, limited, little_memory, stopped
from tests.soak.chaos.result import ChaosResult

# The stubs that hold nothing beyond a request.
_STEPS = ("preprocessing", "vit", "postprocessing")
# What is done, and how often in relation to the others. The death of tritonserver costs the most time.
DISTURBANCES: Mapping[str, float] = {
    **{f"kill {one}": 2 for one in ("frontend", *_STEPS)},
    **{f"stop {one}": 3 for one in ("frontend", "tensorrt_llm", "tritonserver", *_STEPS)},
    **{f"{verb} {one}": 1 for verb in ("kill", "stop") for one in ("embedding", "core")},
    **{"kill tensorrt_llm": 1, "kill tritonserver": 1, "full-disk frontend": 2},
    **{f"starve {one}": 1 for one in ("frontend", "preprocessing", "postprocessing")},
}
# What needs a machine, or a container, that nothing else uses (tests/soak/isolated.sh).
ISOLATED: Mapping[str, float] = {"memory all": 3, "shared-memory all": 3, "slow-disk all": 3}
_MEMORY_LEFT = 64 * 2**20
_SHARED_MEMORY_LEFT = 256 * 2**10
# What a starved process may still allocate.
_STARVED_LEFT = 8 * 2**20
_SHORTAGE_S = 3.0
_STOPS_S = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Disturber:
    """Disturbs the processes of one stack. weights: as DISTURBANCES has them. disk: the folder of its logs."""

    def __init__(
        self, stack: Stack, seed: str, result: ChaosResult, weights: Mapping[str, float], disk: Path | None = None
    ) -> None:
        self._stack, self._result, self._weights, self._disk = stack, result, weights, disk
        self._random = random.Random(seed)  # nosec B311 # no secret is drawn
        # What was done last.
        self.last = "nothing"
        self._acts: Mapping[str, Callable[[psutil.Process, str], None]] = {
            "kill": self._kill,
            "stop": self._stop,
            "full-disk": self._fill_disk,
            "starve": self._starve,
        }
        self._shortages: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
            "memory": lambda: little_memory(_MEMORY_LEFT),
            "shared-memory": lambda: full_shared_memory(_SHARED_MEMORY_LEFT),
            "slow-disk": lambda: frozen_disk(self._disk or Path.cwd()),
        }

    def disturb(self) -> None:
        """Do one thing; returns when it is done."""
        verb, victim = self._random.choices(list(self._weights), list(self._weights.values()))[0].split(" ", 1)
        if verb in self._shortages:
            self._note(f"{verb}, all processes")
            with self._shortages[verb]():
                time.sleep(_SHORTAGE_S)
            return
        try:
            self._acts[verb](self._random.choice(self._processes(victim)), victim)
        except (IndexError, psutil.Error):
            # It is being restarted, or there is none of this kind.
            self._result.disturbances[f"nothing, as there was no {victim}"] += 1

    def _note(self, what: str) -> None:
        self.last = what
        self._result.disturbances[what] += 1

    def _kill(self, process: psutil.Process, victim: str) -> None:
        self._note(f"kill {victim}")
        process.kill()

    def _stop(self, process: psutil.Process, victim: str) -> None:
        seconds = self._random.choice(_STOPS_S)
        self._note(f"stop {victim}, {'under 2 s' if seconds < 2 else '2 to 10 s'}")
        with stopped(process):
            time.sleep(seconds)

    def _fill_disk(self, process: psutil.Process, victim: str) -> None:
        """Let no file that the process writes become longer, as if the disk of its log were full.

        Only of one that serves, as its listening socket tells: none starts on a full disk.
        """
        if not any(one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp")):
            return
        self._note(f"full disk of a {victim}")
        with limited(process, psutil.RLIMIT_FSIZE, 1):
            time.sleep(_SHORTAGE_S)

    def _starve(self, process: psutil.Process, victim: str) -> None:
        """Let the process allocate hardly anything more."""
        self._note(f"starve {victim}")
        with limited(process, psutil.RLIMIT_AS, process.memory_info().vms + _STARVED_LEFT):
            time.sleep(_SHORTAGE_S)

    def _processes(self, victim: str) -> list[psutil.Process]:
        """The processes of one kind: frontend, tritonserver, core (of vLLM), or the stubs of a role."""
        parts = self._stack.parts
        if victim == "frontend":
            return [psutil.Process(part.pid) for part in parts if part.name.startswith("frontend")]
        triton = psutil.Process(parts[0].pid)
        if victim == "tritonserver":
            return [triton]
        if victim == "core":
            return [one for one in triton.children(recursive=True) if "EngineCore" in " ".join(one.cmdline())]
        return [one for one in triton.children() if _is_stub(one, victim)]


def _is_stub(process: psutil.Process, role: str) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.Error:
        # A dead one, which Triton leaves as a zombie.
        return False
    model = next((Path(one).parents[1].name for one in arguments if one.endswith("/1/model.py")), "")
    return model.split(".")[-1] == role
