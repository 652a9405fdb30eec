# SPDX-License-Identifier: Apache-2.0
"""Send responses on a separate thread, so that the engine's loop never waits for Triton.

Triton takes a model's responses one after the other (0.1 to 0.4 ms each), and an engine makes hundreds of tokens in a
few milliseconds. So all tokens that a stream has made since its last response are sent as one response. First responses
are sent before later ones of other streams.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

from common.errors import RequestError
from engines.engine import Tokens
from engines.reply import Reply
from engines.tensors import Outputs

log = logging.getLogger("tensorrt_llm")


class Outgoing:
    """The responses of one generation. The outbox's lock guards its attributes.

    waiting: the tokens of the next response. begun: the first response is sent. queued: a response is in a queue.
    ended: the last response is sent or queued; later ones are dropped, as Triton crashes on a response after the last.
    """

    __slots__ = ("begun", "ended", "error", "outputs", "queued", "reply", "waiting")

    def __init__(self, reply: Reply, outputs: Outputs) -> None:
        self.reply, self.outputs = reply, outputs
        self.waiting: Tokens | None = None
        self.error: RequestError | None = None
        self.begun = self.queued = self.ended = False


class Outbox:
    """The queue of responses and its thread. `put`, `fail` and `call` return at once, on any thread."""

    def __init__(self) -> None:
        self._first: deque[Outgoing] = deque()
        self._later: deque[Outgoing | Callable[[], None]] = deque()
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
                # Other streams are not affected.
                log.exception("a response could not be sent")
                if isinstance(item, Outgoing):
                    self._end_failed(item)

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
