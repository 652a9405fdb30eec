# SPDX-License-Identifier: Apache-2.0
"""Sends responses on a thread of its own, so that the engine's loop never waits for Triton.

Triton takes one response of a model after the other (0.1 to 0.4 ms each), an engine makes hundreds of tokens in a few
milliseconds. What a stream has made since its last response therefore goes out as one response: the streams keep up
together, by responses that hold more tokens. A stream's first response waits for no other's later ones.
"""

import threading
from collections import deque
from collections.abc import Callable

from common.errors import RequestError
from common.logs import model_logger
from engines.engine import Tokens
from engines.reply import Reply
from engines.tensors import Outputs

log = model_logger("tensorrt_llm", verbose=True)


class Outgoing:
    """One generation's way out. `waiting` is what its next response will hold; the outbox's lock guards it.

    ended: the end is sent or on its way, so whatever is put later is dropped: Triton crashes on a response after it.
    """

    __slots__ = ("begun", "ended", "error", "outputs", "queued", "reply", "waiting")

    def __init__(self, reply: Reply, outputs: Outputs) -> None:
        self.reply, self.outputs = reply, outputs
        self.waiting: Tokens | None = None
        self.error: RequestError | None = None
        self.begun = self.queued = self.ended = False


class Outbox:
    """`put`, `fail` and `call` return at once and may be called from any thread."""

    def __init__(self) -> None:
        self._first: deque[Outgoing] = deque()
        self._later: deque[Outgoing | Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._sent = self._tokens = 0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, outgoing: Outgoing, tokens: Tokens) -> None:
        """Send these tokens, together with those that have not been sent yet."""
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
        """End the generation by an error, after what has not been sent yet."""
        with self._changed:
            if not outgoing.ended:
                outgoing.ended, outgoing.error = True, error
                self._enqueue(outgoing)

    def call(self, job: Callable[[], None]) -> None:
        """Run what must not overlap with the sending of a response."""
        with self._changed:
            self._later.append(job)
            self._changed.notify()

    def tokens_per_response(self) -> float:
        """Mean of the responses since the last call, without each stream's first; 1 where there were none."""
        with self._changed:
            mean = self._tokens / self._sent if self._sent else 1.0
            self._sent = self._tokens = 0
        return mean

    def close(self) -> None:
        """Send all that waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _enqueue(self, outgoing: Outgoing) -> None:
        if not outgoing.queued:
            outgoing.queued = True
            (self._later if outgoing.begun else self._first).append(outgoing)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._first and not self._later:
                    if self._closed:
                        return
                    self._changed.wait()
                item = self._first.popleft() if self._first else self._later.popleft()
                if isinstance(item, Outgoing):
                    tokens, error = item.waiting, item.error
                    if item.begun and tokens is not None:
                        self._sent += 1
                        self._tokens += len(tokens.ids)
                    item.waiting, item.queued, item.begun = None, False, True
            try:
                if isinstance(item, Outgoing):
                    _send(item, tokens, error)
                else:
                    item()
            except Exception:
                # The other streams go on.
                log.exception("a response could not be sent")


def _send(outgoing: Outgoing, tokens: Tokens | None, error: RequestError | None) -> None:
    if tokens is not None:
        tensors = outgoing.outputs.tensors(tokens)
        if tokens.finish is not None:
            outgoing.reply.end(tensors)
            return
        outgoing.reply.send(tensors)
    if error is not None:
        outgoing.reply.fail(error, outgoing.outputs.stream_id)
