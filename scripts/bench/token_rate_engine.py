# SPDX-License-Identifier: Apache-2.0
"""An engine that computes nothing and emits tokens at a fixed rate, to measure only the layers around it.

All running requests get a token at each step, as in an engine's batch. A request that fetches late gets several tokens
at once, as with vLLM, whose engine runs in a process of its own.
"""

import asyncio
import time
from collections.abc import Mapping

from common.finish_reason import FinishReason
from common.tokenizer import ChatTokenizer
from engines.engine import STATISTICS, Generation, Put, Tokens
from engines.options import EngineOptions

# The words of every answer; each is one token of nearly every vocabulary.
_TEXT = " the of and to in is that for it was on are as with they be at one have this from by hot word but what some we"


class TokenRateEngine:
    """Implements the `Engine` protocol. Options: `token_rate` steps a second, `max_num_seqs` requests at once."""

    def __init__(self, options: EngineOptions) -> None:
        self._rate = float(options.passed["token_rate"])
        self._slots = asyncio.Semaphore(int(options.passed.get("max_num_seqs", 2**31)))
        tokenizer = ChatTokenizer.load(options.model_path)
        self._ids = tokenizer.encode(_TEXT, add_special_tokens=False)
        self._running: set[asyncio.Event] = set()
        self._busy = asyncio.Event()
        self._inside = 0
        self._begun = time.monotonic()

    async def start(self) -> None:
        """Start the stepping task."""
        self._steps = asyncio.create_task(self._step())

    async def generate(self, generation: Generation, put: Put) -> None:
        """Emit max_tokens ids."""
        self._inside += 1
        try:
            async with self._slots:
                await self._write(generation.max_tokens, put)
        finally:
            self._inside -= 1

    def statistics(self) -> Mapping[str, float]:
        """`running` and `waiting`; there is no cache."""
        running = len(self._running)
        return dict.fromkeys(STATISTICS, 0.0) | {"running": running, "waiting": self._inside - running}

    def shutdown(self) -> None:
        """Stop stepping."""
        self._steps.get_loop().call_soon_threadsafe(self._steps.cancel)

    async def _write(self, most: int, put: Put) -> None:
        stepped, first, written = asyncio.Event(), self._now(), 0
        self._running.add(stepped)
        self._busy.set()
        try:
            while written < most:
                await stepped.wait()
                stepped.clear()
                due = min(self._now() - first, most)
                if due > written:
                    tokens = Tokens(self._cut(written, due), cached_tokens=0)
                    written = due
                    tokens.finish = FinishReason.LENGTH if written == most else None
                    put(tokens)
        finally:
            self._running.discard(stepped)
            if not self._running:
                self._busy.clear()

    def _now(self) -> int:
        """Steps since the start."""
        return int((time.monotonic() - self._begun) * self._rate)

    def _cut(self, start: int, end: int) -> list[int]:
        return [self._ids[index % len(self._ids)] for index in range(start, end)]

    async def _step(self) -> None:
        while True:
            await self._busy.wait()
            following = self._begun + (self._now() + 1) / self._rate
            await asyncio.sleep(max(0.0, following - time.monotonic()))
            for stepped in self._running:
                stepped.set()
