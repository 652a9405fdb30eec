# SPDX-License-Identifier: Apache-2.0
"""The end of a request of several generations, some of whose responses cannot be sent."""

import threading
import time
from contextlib import suppress

import pytest

from common.errors import RequestError
from common.finish_reason import FinishReason
from engines.engine import Tokens, engine_failure
from engines.outbox import Outbox, Outgoing
from engines.reply import Reply
from engines.tensors import Inputs, Outputs
from python_backend.api import FINAL

FAILURE = engine_failure()


class Sender:
    """Triton's, which cannot send the responses with these numbers; records what arrived."""

    def __init__(self, *broken: int) -> None:
        self._broken, self._calls = broken, 0
        self.sent: list[tuple[bool, bool]] = []

    def send(self, response: object = None, flags: int = 0) -> None:
        """Record whether there is a response, and whether it is the last one."""
        self._calls += 1
        if self._calls in self._broken:
            raise RuntimeError("no shared memory")
        assert not self.ended, "a response after the last"
        self.sent.append((response is not None, bool(flags & FINAL)))

    def is_cancelled(self) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return any(final for _, final in self.sent)


def reply_to(sender: Sender, generations: int) -> Reply:
    return Reply(sender, generations=generations)  # type: ignore[arg-type] # a fake


def end(reply: Reply) -> None:
    """End one generation as the outbox does."""
    try:
        reply.end([])
    except RuntimeError:
        with suppress(RuntimeError):
            reply.fail(FAILURE)


@pytest.mark.parametrize("generations", [1, 2, 3])
@pytest.mark.parametrize("broken", [(), (1,), (2,), (3,), (1, 3), (1, 2), (3, 4)], ids=str)
def test_the_last_generation_ends_the_request(generations: int, broken: tuple[int, ...]) -> None:
    sender = Sender(*broken)
    reply = reply_to(sender, generations)
    for number in range(generations):
        assert (reply.ended, sender.ended) == (False, False), number
        end(reply)
    assert reply.ended and sender.ended


def test_a_failure_that_cannot_be_sent_is_an_end_without_a_response() -> None:
    sender = Sender(1)
    reply = reply_to(sender, 1)
    with pytest.raises(RuntimeError, match="no shared memory"):
        reply.fail(RequestError("wrong"))
    assert sender.sent == [(False, True)] and reply.ended


class NoInputs(Inputs):
    def __init__(self) -> None:
        self._tensors = {}


class SlowSender(Sender):
    """Fails to send the first response, after the generation has failed for another reason."""

    def __init__(self) -> None:
        super().__init__(1)
        self.meanwhile = lambda: None

    def send(self, response: object = None, flags: int = 0) -> None:
        self.meanwhile()
        super().send(response, flags)


def test_a_generation_that_fails_while_its_response_cannot_be_sent_ends_once() -> None:
    sender = SlowSender()
    outgoing = Outgoing(reply_to(sender, 2), Outputs(set(), NoInputs(), 1, 0, 0))
    outbox = Outbox(lambda job: job())
    sender.meanwhile = lambda: outbox.fail(outgoing, FAILURE)
    outbox.put(outgoing, Tokens([1]))
    deadline = time.monotonic() + 30
    while not sender.sent and time.monotonic() < deadline:
        time.sleep(0.01)
    outbox.close()
    assert sender.sent == [(True, False)] and not outgoing.reply.ended


def test_a_failure_that_cannot_be_sent_ends_its_generation_only() -> None:
    sender = Sender(1)
    reply = reply_to(sender, 2)
    failed, other = (Outgoing(reply, Outputs(set(), NoInputs(), number, 0, number)) for number in (0, 1))
    outbox = Outbox(lambda job: job())
    outbox.fail(failed, FAILURE)
    handled = threading.Event()
    outbox.call(handled.set)
    assert handled.wait(30) and sender.sent == []
    outbox.put(other, Tokens([1], finish=FinishReason.END_ID))
    outbox.close()
    assert sender.sent == [(True, True)]
