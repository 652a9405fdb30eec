# SPDX-License-Identifier: Apache-2.0
"""A worker thread that runs the vision tower on the tiles of all queued requests.

`execute` returns at once, so that a text request never waits behind images. The tiles that arrive during one run make
up the next one, without a queueing delay.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from common.errors import RequestError
from common.logs import about
from python_backend.logs import model_logger
from vision.batches import Part, TileQueue
from vision.runtimes.runtime import VisionRuntime

log = model_logger("vit", verbose=True)


@dataclass(eq=False, slots=True)
class Job:
    """The tiles of one request, and the callbacks for its result.

    tiles: uint8 [n, s, s, 3] on the CPU. done: called with the rows, bfloat16 [n * tokens, llm_hidden]. failed: called
    with the error. Exactly one of the two is called, once, on the worker's thread.
    """

    tiles: torch.Tensor
    done: Callable[[torch.Tensor], None]
    failed: Callable[[RequestError], None]
    pieces: list[torch.Tensor] = field(default_factory=list)
    request_id: str = ""


class TileWorker:
    """Runs queued jobs on one thread, which is the only one that calls the runtime."""

    def __init__(self, runtime: VisionRuntime, tile_budget: int) -> None:
        self._runtime = runtime
        self._budget = min(tile_budget, runtime.max_tiles)
        self._queue: TileQueue[Job] = TileQueue()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="vit-worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job of at least one tile."""
        with self._changed:
            self._queue.add(job, len(job.tiles))
            self._changed.notify()

    def close(self) -> None:
        """Finish the queued jobs and stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while parts := self._next():
            self._run(parts)

    def _next(self) -> list[Part[Job]]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._queue.take(self._budget)

    def _run(self, parts: list[Part[Job]]) -> None:
        try:
            pieces = self._rows(parts)
        except Exception:
            ids = [part.job.request_id for part in parts]
            log.exception("a run of %d tiles failed", sum(part.tiles for part in parts), extra=about(*ids))
            for part in parts:
                self._fail(part.job)
            return
        for part, piece in zip(parts, pieces, strict=True):
            part.job.pieces.append(piece)
            if part.stop == len(part.job.tiles):
                try:
                    part.job.done(_joined(part.job.pieces))
                except Exception:
                    # The thread must go on: the jobs of others wait for it.
                    log.exception("a response could not be sent", extra=about(part.job.request_id))
                    self._fail(part.job)

    def _fail(self, job: Job) -> None:
        with self._changed:
            self._queue.drop(job)
        try:
            job.failed(RequestError("the vision tower failed on this request", kind="internal"))
        except Exception:
            log.exception("a failure could not be sent", extra=about(job.request_id))

    def _rows(self, parts: list[Part[Job]]) -> tuple[torch.Tensor, ...]:
        """Run the tower once. Returns for each part its rows, bfloat16 [tiles * tokens, llm_hidden]."""
        tiles = _joined([part.job.tiles[part.start : part.stop] for part in parts])
        embeddings = self._runtime.run(tiles).to(torch.bfloat16)
        tokens = embeddings.shape[1]
        return torch.split(embeddings.flatten(0, 1), [part.tiles * tokens for part in parts])


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate the tensors; a single one is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
