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

from common.errors import RequestError
from engines.engine import Tokens
from engines.reply import Reply
from engines.tensors import Outputs, batch_tensors
from python_backend.api import Tensor

log = logging.getLogger("tensorrt_llm")


class Outgoing:
    """The responses of one generation. The outbox's lock guards its attributes.

    group: the response group that it belongs to, or None.
    waiting: the tokens of the next response. begun: the first response is sent. queued: a response is in a queue.
    ended: the last response is sent or queued; later ones are dropped, as Triton crashes on a response after the last.
    """

    __slots__ = ("begun", "ended", "error", "group", "outputs", "queued", "reply", "waiting")

    def __init__(self, reply: Reply, outputs: Outputs, group: str | None = None) -> None:
        self.reply, self.outputs, self.group = reply, outputs, group
        self.waiting: Tokens | None = None
        self.error: RequestError | None = None
        self.begun = self.queued = self.ended = False


@dataclass(slots=True)
class _Batch:
    """The generations of one response group that have something to send."""

    members: list[Outgoing] = field(default_factory=list)


# What is sent of a generation: its new tokens, the error that ends it, or both.
_Piece = tuple[Outgoing, Tokens | None, RequestError | None]


class Outbox:
    """The queue of responses and its thread. `put`, `fail` and `call` return at once, on any thread.

    soon: runs a function once the other generations had their turn. A batch is sent after that, with what all of them
    have made in this step.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._groups: dict[str, _Batch] = {}
        self._first: deque[Outgoing] = deque()
        self._later: deque[Outgoing | _Batch | Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._sent = self._tokens = 0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, outgoing: Outgoing, tokens: Tokens) -> None:
        """Send these tokens, together with those that wait to be sent."""
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
        with self._changed:
            if not outgoing.ended:
                outgoing.ended, outgoing.error = True, error
                self._enqueue(outgoing)

    def call(self, job: Callable[[], None]) -> None:
        """Run a function on the thread, so that it never overlaps with the sending of a response."""
        with self._changed:
            self._later.append(job)
            self._changed.notify()

    def tokens_per_response(self) -> float:
        """Mean tokens per response since the last call, first responses excluded; 1 if there were none."""
        with self._changed:
            mean = self._tokens / self._sent if self._sent else 1.0
            self._sent = self._tokens = 0
        return mean

    def close(self) -> None:
        """Send everything that waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _enqueue(self, outgoing: Outgoing) -> None:
        if outgoing.queued:
            return
        outgoing.queued = True
        if outgoing.group is None:
            (self._later if outgoing.begun else self._first).append(outgoing)
            self._changed.notify()
            return
        batch = self._groups.get(outgoing.group)
        if batch is None:
            batch = self._groups[outgoing.group] = _Batch()
            self._soon(partial(self._enqueue_batch, batch))
        batch.members.append(outgoing)

    def _enqueue_batch(self, batch: _Batch) -> None:
        with self._changed:
            self._later.append(batch)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._first and not self._later:
                    if self._closed and not self._groups:
                        return
                    self._changed.wait()
                item = self._first.popleft() if self._first else self._later.popleft()
                pieces = self._take(item)
            if isinstance(item, _Batch):
                for senders, send in _batch_sends(pieces):
                    self._attempt(send, senders)
            elif isinstance(item, Outgoing):
                self._attempt(partial(_send, *pieces[0]), [item])
            else:
                self._attempt(item, [])

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
            members = item.members
            del self._groups[str(members[0].group)]
        else:
            members = [item] if isinstance(item, Outgoing) else []
        pieces: list[_Piece] = []
        for outgoing in members:
            tokens = outgoing.waiting
            if outgoing.begun and tokens is not None:
                self._sent += 1
                self._tokens += len(tokens.ids)
            outgoing.waiting, outgoing.queued, outgoing.begun = None, False, True
            pieces.append((outgoing, tokens, outgoing.error))
        return pieces

    def _end_failed(self, outgoing: Outgoing) -> None:
        """End a generation whose response could not be built: Triton waits for its end."""
        with self._changed:
            outgoing.ended, outgoing.waiting = True, None
        try:
            outgoing.reply.fail(
                RequestError("the engine failed on this request", kind="internal"), outgoing.outputs.stream_id
            )
        except Exception:
            log.exception("a failure could not be sent")


def _send(outgoing: Outgoing, tokens: Tokens | None, error: RequestError | None) -> None:
    if tokens is not None:
        tensors = outgoing.outputs.tensors(tokens)
        if tokens.finish is not None:
            outgoing.reply.end(tensors)
            return
        outgoing.reply.send(tensors)
    if error is not None:
        outgoing.reply.fail(error, outgoing.outputs.stream_id)


def _batch_sends(pieces: list[_Piece]) -> Iterator[tuple[list[Outgoing], Callable[[], None]]]:
    """What is sent for a group, each with whose it is: one response for all, and the last ones of those that end.

    The response for all may be any of theirs. It is that of a generation which ends, if one does, as that needs one.
    """
    made = [(outgoing, tokens) for outgoing, tokens, _ in pieces if tokens is not None]
    ending = [(outgoing, tokens) for outgoing, tokens in made if tokens.finish is not None]
    shared = [(outgoing, tokens) for outgoing, tokens in made if tokens.finish is None] + ending[:1]
    if shared:
        carrier = shared[-1][0].reply
        yield [outgoing for outgoing, _ in shared], partial(_send_rows, carrier.end if ending else carrier.send, shared)
    for outgoing, tokens in ending[1:]:
        yield [outgoing], partial(_send_rows, outgoing.reply.end, [(outgoing, tokens)])
    for outgoing, _, error in pieces:
        if error is not None and not outgoing.reply.ended:
            yield [outgoing], partial(outgoing.reply.fail, error, outgoing.outputs.stream_id)


def _send_rows(send: Callable[[list[Tensor]], None], made: list[tuple[Outgoing, Tokens]]) -> None:
    send(batch_tensors([outgoing.outputs.row(tokens) for outgoing, tokens in made]))
