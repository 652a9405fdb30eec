# SPDX-License-Identifier: Apache-2.0
"""Stops each process of a running stack for some seconds (SIGSTOP), and measures what clients see of it.

Every request has an answer of its own, so that one that got another's, or a part of it, is counted as wrong.
"""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from common.processes import command_line
from scripts.launcher import Stack
from tests.soak.gauges import busy, read_gauges

STREAMS, BRIEF = 8, 24
# How long anything may take: longer than the longest stop and a restart on a busy machine.
PATIENCE_S = 300.0
_POLL_S = 0.05
# In a row, after which the service counts as back.
_SERVED = 3
# Between two short requests, and how long clients go on after the service is back.
_PAUSE_S, _AFTER_S = 0.25, 3.0
# Items of a scripted story, and tokens of an answer of a real engine: some more than the longest stop needs.
ITEMS, TOKENS = 1000, 500

TRITON, FRONTEND, CORE, WORKER = "tritonserver", "frontend", "engine core", "worker"
MODELS = ("preprocessing", "vit", "tensorrt_llm", "postprocessing")
# Together with a model's process, by "+": Triton then has nobody who says that it is healthy.
WATCHDOG = "watchdog"
# Every process of the stack, as when its machine is paused.
ALL = "all"
SCRIPTED = (FRONTEND, *MODELS, TRITON, ALL)
REAL = (CORE, WORKER)
HEADER = (
    "| stopped | s | streams whole, lost | short answers whole, refused, lost | wrong | longest gap s | served after s "
    "| ready after s | server restarted | left over |"
)


def rules(hurry: Path) -> list[dict[str, Any]]:
    """The script: a long answer for each stream, which ends at once when `hurry` exists, and short ones."""
    long = {"delay_s": 0.05, "hurry": str(hurry)}
    streams = [{"contains": f"<story {number}>", "text": story(number), **long} for number in range(STREAMS)]
    return streams + [{"contains": f"<word {number}>", "text": word(number)} for number in range(BRIEF)]


def story(number: int) -> str:
    """The whole answer of one stream."""
    return " ".join(f"{number}:{index}" for index in range(ITEMS))


def word(number: int) -> str:
    """The answer to one short request."""
    return f"the answer to word {number} is {number * number}"


@dataclass
class Seen:
    """What clients saw. wrong: answers that are not the ones asked for."""

    whole: int = 0
    refused: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    longest_gap: float = 0.0


class Clients:
    """Streams under way and short requests one after the other, each on a thread.

    scripted: the answers are known; of a real engine's only the length is checked.
    """

    def __init__(self, url: str, model: str, scripted: bool) -> None:
        self._url, self._model, self._scripted = f"{url}/v1/chat/completions", model, scripted
        self.streams, self.brief = Seen(), Seen()
        self.begun = 0
        # Short requests answered since the last failure, and when the first of them was sent.
        self.in_a_row, self.row_began = 0, 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._stream, args=(n,), daemon=True) for n in range(STREAMS)]
        self.asking = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(2)]

    def start(self) -> None:
        for thread in self.threads + self.asking:
            thread.start()

    def stop(self) -> None:
        """Ask nothing more."""
        self._stop.set()

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self.threads + self.asking)

    def _body(self, content: str, **more: Any) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": content}], "temperature": 0.0, **more}

    def _stream(self, number: int) -> None:
        seen, text, last, end = self.streams, "", time.monotonic(), ""
        body = self._body(f"<story {number}>", stream=True)
        body |= {"max_tokens": 10 * ITEMS} if self._scripted else {"max_tokens": TOKENS, "ignore_eos": True}
        try:
            with httpx.stream("POST", self._url, json=body, timeout=PATIENCE_S) as response:
                if response.status_code != 200:
                    seen.refused += 1
                    return
                for line in response.iter_lines():
                    if not line.startswith("data: {"):
                        continue
                    now = time.monotonic()
                    seen.longest_gap, last = max(seen.longest_gap, now - last), now
                    event = json.loads(line[6:])
                    if "error" in event:
                        seen.lost[event["error"]["code"]] += 1
                        end = "error"
                        break
                    choice = event["choices"][0]
                    if not text and choice["delta"].get("content"):
                        with self._lock:
                            self.begun += 1
                    text += choice["delta"].get("content") or ""
                    end = choice["finish_reason"] or end
        except httpx.TransportError as error:
            seen.lost[type(error).__name__] += 1
            end = "error"
        if end == "error":
            good = not self._scripted or story(number).startswith(text)
        else:
            good = text == story(number) if self._scripted else end == "length"
        if not good:
            seen.wrong.append(f"stream {number}: {text[:40]!r} ... {text[-40:]!r} ({end})")
        elif end != "error":
            seen.whole += 1

    def _ask(self, client: int) -> None:
        number = client
        while not self._stop.wait(_PAUSE_S):
            number = (number + 2) % BRIEF
            sent = time.monotonic()
            good = self._brief(number)
            with self._lock:
                if not good:
                    self.in_a_row = 0
                else:
                    self.row_began = min(sent, self.row_began) if self.in_a_row else time.monotonic()
                    self.in_a_row += 1

    def _brief(self, number: int) -> bool:
        seen, begun = self.brief, time.monotonic()
        body = self._body(f"<word {number}>", max_tokens=64 if self._scripted else 4)
        try:
            response = httpx.post(self._url, json=body, timeout=PATIENCE_S)
        except httpx.TransportError as error:
            seen.lost[type(error).__name__] += 1
            return False
        seen.longest_gap = max(seen.longest_gap, time.monotonic() - begun)
        if response.status_code == 503:
            seen.refused += 1
            return False
        if response.status_code != 200:
            seen.lost[str(response.status_code)] += 1
            return False
        text = response.json()["choices"][0]["message"]["content"]
        if self._scripted and text != word(number):
            seen.wrong.append(f"word {number}: {text!r}")
            return False
        seen.whole += 1
        return True


def victims(stack: Stack, name: str) -> list[int]:
    """The ids of processes by the name of their kind."""
    if name == ALL:
        return [pid for part in stack.parts for pid in part.session()]
    if name == TRITON:
        return [stack.parts[0].pid]
    if name == WATCHDOG:
        return [pid for pid in stack.parts[0].session() if "python_backend.watchdog" in command_line(pid)]
    if name == FRONTEND:
        return [stack.parts[1].pid]
    # Not only children: the watchdog outlives the process that started it.
    for process in map(psutil.Process, stack.parts[0].session()):
        with suppress(psutil.Error):
            words = process.cmdline()
            if name in (CORE, WORKER):
                if {CORE: "VLLM::EngineCore", WORKER: "VLLM::Worker"}[name] in " ".join(words):
                    return [process.pid]
            elif any(word.endswith(f"/{name}/1/model.py") for word in words):
                return [process.pid]
    raise LookupError(f"no process of {name}")


class Bench:
    """A running stack, looked after by this thread, as `Stack.wait` does."""

    def __init__(self, stack: Stack, hurry: Path | None) -> None:
        self._stack = stack
        # With which the scripted streams end; None for a real engine.
        self._hurry = hurry

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(what)
            self._stack.restart_dead()
            time.sleep(_POLL_S)

    def measure(self, name: str, seconds: float) -> str:
        """Stop a process for so long; returns a row of the table. Raises TimeoutError if something hangs."""
        if self._hurry is not None:
            self._hurry.unlink(missing_ok=True)
        part, before = self._stack.parts[0], processes(self._stack)
        clients = Clients(self._stack.url, self._stack.model_names[0], self._hurry is not None)
        clients.start()
        self._until(lambda: clients.begun == STREAMS and clients.in_a_row >= _SERVED, "streams begin")
        clients.streams.longest_gap = clients.brief.longest_gap = 0.0
        pids = [pid for one in name.split("+") for pid in victims(self._stack, one)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        self._until(lambda: time.monotonic() - stopped >= seconds, "the stop")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        resumed = time.monotonic()
        with clients._lock:
            clients.in_a_row = 0
        ready = Ready(self._stack.url)
        ready.start()
        self._until(lambda: clients.in_a_row >= _SERVED and ready.since is not None, "the service is back")
        calm = time.monotonic() + _AFTER_S
        # A late fault begins the count again.
        self._until(lambda: time.monotonic() > calm, "a while after")
        self._until(lambda: clients.in_a_row >= _SERVED and ready.since is not None, "the service is still there")
        ready.stop()
        served, ready_after = clients.row_began - resumed, (ready.since or 0.0) - resumed
        if self._hurry is not None:
            self._hurry.touch()
        clients.stop()
        self._until(lambda: clients.done, "all answers end")
        left = self._left_over(before)
        streams, brief = clients.streams, clients.brief
        wrong = streams.wrong + brief.wrong
        row = (
            f"| {name} | {seconds:g} | {streams.whole}, {_counted(streams)} | {brief.whole}, {brief.refused}, "
            f"{_counted(brief, refused=False)} | {len(wrong)} | {max(streams.longest_gap, brief.longest_gap):.1f} "
            f"| {max(0.0, served):.1f} | {max(0.0, ready_after):.1f} "
            f"| {'no' if self._stack.parts[0] is part else 'yes'} | {left} |"
        )
        return "\n".join([row, *wrong[:3]])

    def _left_over(self, before: Counter[str]) -> str:
        """What is there now that was not before, and what is not at rest, within a minute."""
        end = time.monotonic() + 60.0

        def left() -> list[str]:
            with suppress(httpx.HTTPError):
                more = processes(self._stack) - before
                return [*map(str, busy(read_gauges(self._stack))), *more]
            return ["no gauges"]

        while (found := left()) and time.monotonic() < end:
            self._stack.restart_dead()
            time.sleep(0.5)
        return ", ".join(found) or "nothing"


class Ready:
    """Since when readiness has been true without a break."""

    def __init__(self, url: str) -> None:
        self.since: float | None = None
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                good = httpx.get(f"{self._url}/health/ready", timeout=5.0).status_code == 200
            except httpx.HTTPError:
                good = False
            self.since = (self.since or time.monotonic()) if good else None


def _counted(seen: Seen, refused: bool = True) -> str:
    lost = seen.lost + (Counter({"503": seen.refused}) if refused and seen.refused else Counter())
    return f"{lost.total()} ({', '.join(lost)})" if lost else "0"


def processes(stack: Stack) -> Counter[str]:
    """The living processes of a stack, by name."""
    found: Counter[str] = Counter()
    for part in stack.parts:
        for pid in part.session():
            with suppress(psutil.Error):
                found[psutil.Process(pid).name()] += 1
    return found


def measure_stops(stack: Stack, hurry: Path | None, names: Sequence[str], stops: Sequence[float]) -> Iterator[str]:
    """Yield the rows of the table."""
    bench = Bench(stack, hurry)
    for name in names:
        for seconds in stops:
            yield bench.measure(name, seconds)
