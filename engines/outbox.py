# SPDX-License-Identifier: Apache-2.0
"""Send responses on a separate thread, so that the engine's loop never waits for Triton.

Triton takes a model's responses one after the other (0.1 to 0.4 ms each), and an engine makes hundreds of tokens in a
few milliseconds. So all tokens that a stream has made since its last response are sent as one response. First responses
are sent before later ones of other streams. The streams of a response group (common/response_batch.py) share one.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from common.errors import RequestError
from common.response_batch import failed_row, is_encodable
from engines.engine import Tokens, engine_failure
from engines.reply import Reply
from engines.tensors import Outputs, batch_tensors
from python_backend.api import Tensor

log = logging.getLogger("tensorrt_llm")


class Outgoing:
    """The responses of one generation.

    group: the response group that it belongs to, or None.
    waiting: the tokens of the next response. begun: the first response is sent. queued: a response is in a queue. The
    outbox's lock guards these three and `error`, which generations in a group do not use.
    ended: the last response is sent or queued; later ones are dropped, as Triton crashes on a response after the last.
    """

    __slots__ = ("begun", "ended", "error", "group", "outputs", "queued", "reply", "waiting")

    def __init__(self, reply: Reply, outputs: Outputs, group: str | None = None) -> None:
        self.reply, self.outputs, self.group = reply, outputs, group
        self.waiting: Tokens | None = None
        self.error: RequestError | None = None
        self.begun = self.queued = self.ended = False


# What is sent of a generation: its new tokens, the error that ends it, or both.
_Piece = tuple[Outgoing, Tokens | None, RequestError | None]
# The same as a row of a batch (TokenRow), and whether it is the last one.
_Row = tuple[Outgoing, tuple[Any, ...], bool]

# A response that is ready, and whose it is.
_Send = tuple[list[Outgoing], Callable[[], None]]


@dataclass(slots=True)
class _Batch:
    """What the generations of one response group have to send, in order."""

    group: str
    pieces: list[_Piece] = field(default_factory=list)


class Outbox:
    """The queue of responses and its thread. `put`, `fail` and `call` return at once.

    For generations in a response group `put` and `fail` are for the thread of `soon` only: so a token of a group needs
    no lock.
    soon: runs a function once the other generations had their turn. A batch is sent after that, with what all of them
    have made in this step.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        # By group: the batch of this turn, and the one that waits to be sent.
        self._batches: dict[str, _Batch] = {}
        self._queued: dict[str, _Batch] = {}
        self._first: deque[Outgoing] = deque()
        self._later: deque[Outgoing | _Batch | Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, outgoing: Outgoing, tokens: Tokens) -> None:
        """Send these tokens, together with those that wait to be sent."""
        if outgoing.group is not None:
            if not outgoing.ended:
                outgoing.ended = tokens.finish is not None
                self._batch(outgoing.group).pieces.append((outgoing, tokens, None))
            return
        with self._changed:
            if outgoing.ended:
                return
            outgoing.ended = tokens.finish is not None
            if outgoing.waiting is None:
                outgoing.waiting = tokens
            else:
                outgoing.waiting.extend(tokens)
            self._enqueue(outgoing)

    def fail(self, outgoing: Outgoing, error: RequestError) -> None:
        """End the generation with an error, after its tokens that wait to be sent."""
        if outgoing.group is not None:
            if not outgoing.ended:
                outgoing.ended = True
                self._batch(outgoing.group).pieces.append((outgoing, None, error))
            return
        with self._changed:
            if not outgoing.ended:
                outgoing.ended, outgoing.error = True, error
                self._enqueue(outgoing)

    def call(self, job: Callable[[], None]) -> None:
        """Run a function on the thread, so that it never overlaps with the sending of a response."""
        with self._changed:
            self._later.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Send everything that waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _enqueue(self, outgoing: Outgoing) -> None:
        if not outgoing.queued:
            outgoing.queued = True
            (self._later if outgoing.begun else self._first).append(outgoing)
            self._changed.notify()

    def _batch(self, group: str) -> _Batch:
        """The batch of this turn, which is enqueued at its end."""
        batch = self._batches.get(group)
        if batch is None:
            batch = self._batches[group] = _Batch(group)
            self._soon(partial(self._enqueue_batch, group))
        return batch

    def _enqueue_batch(self, group: str) -> None:
        """Let what was made in this turn be sent, together with what Triton could not take yet."""
        with self._changed:
            batch = self._batches.pop(group)
            if (queued := self._queued.get(group)) is not None:
                queued.pieces += batch.pieces
                return
            self._queued[group] = batch
            self._later.append(batch)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._first and not self._later:
                    if self._closed and not self._batches:
                        return
                    self._changed.wait()
                item = self._first.popleft() if self._first else self._later.popleft()
                pieces = self._take(item)
            if isinstance(item, _Batch):
                self._send_batch(pieces)
            elif isinstance(item, Outgoing):
                self._attempt(partial(_send, *pieces[0]), [item])
            else:
                self._attempt(item, [])

    def _send_batch(self, pieces: list[_Piece]) -> None:
        """Send what a batch holds. If it cannot be built, its generations end: this thread serves all others too."""
        try:
            sends = self._batch_sends(pieces)
        except Exception:
            log.exception("a batch could not be built")
            for outgoing in dict.fromkeys(outgoing for outgoing, _, _ in pieces):
                if not outgoing.reply.ended:
                    self._end_failed(outgoing)
            return
        for senders, send in sends:
            self._attempt(send, senders)

    def _attempt(self, send: Callable[[], None], senders: list[Outgoing]) -> None:
        """Send, and end the generations whose response it is if that fails."""
        try:
            send()
        except Exception:
            # Other streams are not affected.
            log.exception("a response could not be sent")
            for outgoing in senders:
                self._end_failed(outgoing)

    def _take(self, item: Outgoing | _Batch | Callable[[], None]) -> list[_Piece]:
        """Take what the generations of an item have to send."""
        if isinstance(item, _Batch):
            del self._queued[item.group]
            return item.pieces
        if isinstance(item, Outgoing):
            pieces: list[_Piece] = [(item, item.waiting, item.error)]
            item.waiting, item.queued, item.begun = None, False, True
            return pieces
        return []

    def _batch_sends(self, pieces: list[_Piece]) -> list[_Send]:
        """What is sent for a batch. A row that JSON cannot hold ends its generation, and no other."""
        rows = [self._row(piece) for piece in _merge(pieces)]
        try:
            return list(_batch_sends(rows))
        except (TypeError, ValueError):
            return list(_batch_sends([_encodable(row) for row in rows]))

    def _row(self, piece: _Piece) -> _Row:
        """Build what a generation adds to a batch. One that cannot be built ends its generation, and no other."""
        outgoing, tokens, error = piece
        try:
            ends = error is not None or (tokens is not None and tokens.finish is not None)
            return outgoing, outgoing.outputs.row(tokens, error), ends
        except Exception:
            log.exception("a response could not be built")
            outgoing.ended = True
            return outgoing, outgoing.outputs.row(None, engine_failure()), True

    def _end_failed(self, outgoing: Outgoing) -> None:
        """End a generation whose response could not be sent: Triton waits for its end."""
        with self._changed:
            outgoing.ended, outgoing.waiting, outgoing.error = True, None, None
        _fail(outgoing, engine_failure())


def _merge(pieces: list[_Piece]) -> list[_Piece]:
    """Merge the pieces of each generation into one, without those that came before a failure to send was known."""
    merged: dict[Outgoing, _Piece] = {}
    for piece in pieces:
        outgoing, tokens, error = piece
        if outgoing.reply.ended:
            continue
        earlier = merged.get(outgoing)
        if earlier is None:
            merged[outgoing] = piece
            continue
        made = earlier[1]
        if made is not None and tokens is not None:
            made.extend(tokens)
        merged[outgoing] = (outgoing, made or tokens, error)
    return list(merged.values())


def _send(outgoing: Outgoing, tokens: Tokens | None, error: RequestError | None) -> None:
    if tokens is not None:
        tensors = outgoing.outputs.tensors(tokens)
        if tokens.finish is not None:
            outgoing.reply.end(tensors)
            return
        outgoing.reply.send(tensors)
    if error is not None:
        _fail(outgoing, error)


def _fail(outgoing: Outgoing, error: RequestError) -> None:
    """Send a failure, once: the generation has ended even if that fails."""
    try:
        outgoing.reply.fail(error, outgoing.outputs.stream_id)
    except Exception:
        log.exception("a failure could not be sent")


def _encodable(row: _Row) -> _Row:
    outgoing, content, _ = row
    if is_encodable(content):
        return row
    log.error("a response could not be built: JSON cannot hold %r", content)
    outgoing.ended = True
    return outgoing, failed_row(content, engine_failure().encode()), True


def _batch_sends(rows: list[_Row]) -> Iterator[_Send]:
    """What is sent for a group: one response for all, and the last ones of those that end.

    The response for all may be any of theirs. It is that of a generation which ends, if one does, as that needs one. An
    error is a row too: a response of its own could overtake the rows before it.
    """
    going_on, ending = [row for row in rows if not row[2]], [row for row in rows if row[2]]
    shared = going_on + ending[:1]
    if shared:
        carrier = shared[-1][0].reply
        yield _rows_send(carrier.end if ending else carrier.send, shared)
    for row in ending[1:]:
        yield _rows_send(row[0].reply.end, [row])


def _rows_send(send: Callable[[list[Tensor]], None], rows: list[_Row]) -> _Send:
    tensors = batch_tensors([row for _, row, _ in rows])
    return [outgoing for outgoing, _, _ in rows], partial(send, tensors)
