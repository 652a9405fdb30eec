# SPDX-License-Identifier: Apache-2.0
"""The outbox: responses are merged while Triton is slow, first ones are sent first, none after the last."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from common.errors import RequestError
from common.finish_reason import FinishReason
from engines import outbox
from engines.engine import Tokens

WAIT = 30.0


class SlowTriton:
    """Takes a response when the gate is open; records (stream, ids or error, ended) in order."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any, bool]] = []
        self.asked = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def take(self, stream: str, what: Any, ended: bool) -> None:
        self.asked.release()
        assert self.gate.acquire(timeout=WAIT)
        self.taken.append((stream, what, ended))


class FakeReply:
    def __init__(self, triton: SlowTriton, name: str, broken: bool = False) -> None:
        self._triton, self._name, self._broken = triton, name, broken
        self.ended = False

    def send(self, ids: list[int]) -> None:
        if self._broken:
            raise RuntimeError("no such request")
        self._triton.take(self._name, ids, False)

    def end(self, ids: list[int]) -> None:
        assert not self.ended
        self.ended = True
        self._triton.take(self._name, ids, True)

    def fail(self, error: RequestError, stream_id: int) -> None:
        assert not self.ended
        self.ended = True
        self._triton.take(self._name, str(error), True)


class FakeOutputs:
    stream_id = 7

    def __init__(self, name: str) -> None:
        self._name = name

    def tensors(self, tokens: Any) -> list[int]:
        return list(tokens.ids)

    def row(self, tokens: Any, error: RequestError | None = None) -> tuple[Any, ...]:
        ids = [] if tokens is None else list(tokens.ids)
        if None in ids:
            raise ValueError("no id")
        return (self._name, ids) if error is None else (self._name, ids, str(error))


class Sending:
    """An outbox, and streams by name: `g1`, `g2` and so on are of the response group `g`.

    turn: ends a turn of the loop, after which batches are sent.
    """

    def __init__(self) -> None:
        self.triton = SlowTriton()
        self._soon: list[Callable[[], None]] = []
        self.outbox = outbox.Outbox(self._soon.append)
        self._streams: dict[str, Any] = {}

    def turn(self) -> None:
        jobs, self._soon[:] = list(self._soon), []
        for job in jobs:
            job()

    def turn_and_wait(self) -> None:
        """Return when Triton is asked to take the batch; the gate stays shut."""
        self.turn()
        assert self.triton.asked.acquire(timeout=WAIT)

    def stream(self, name: str, broken: bool = False) -> Any:
        if name not in self._streams:
            group = name[0] if len(name) == 2 else None
            reply = FakeReply(self.triton, name, broken)
            self._streams[name] = outbox.Outgoing(reply, FakeOutputs(name), group)  # type: ignore[arg-type] # fakes
        return self._streams[name]

    def put(self, name: str, *ids: int, finish: Any = None) -> None:
        self.outbox.put(self.stream(name), Tokens(list(ids), finish=finish))

    def put_and_wait(self, name: str, *ids: int) -> None:
        """Return when Triton is asked to take it; the gate stays shut."""
        self.put(name, *ids)
        assert self.triton.asked.acquire(timeout=WAIT)

    def all(self) -> list[tuple[str, Any, bool]]:
        self.turn()
        self.triton.gate.release(1000)
        self.outbox.close()
        return self.triton.taken


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Sending:
    monkeypatch.setattr(outbox, "batch_tensors", list)
    return Sending()


def test_waiting_tokens_are_merged(sending: Sending) -> None:
    sending.put_and_wait("a", 1)
    for token in (2, 3, 4):
        sending.put("a", token)
    sending.put("a", 5, finish=FinishReason.LENGTH)
    assert sending.all() == [("a", [1], False), ("a", [2, 3, 4, 5], True)]


def test_streams_take_turns(sending: Sending) -> None:
    sending.put_and_wait("a", 1)
    sending.put("b", 1)
    for token in (2, 3):
        for name in "ab":
            sending.put(name, token)
    assert sending.all() == [("a", [1], False), ("b", [1, 2, 3], False), ("a", [2, 3], False)]


def test_a_first_response_passes_later_ones(sending: Sending) -> None:
    for name in "abc":
        sending.put_and_wait(name, 1)
        sending.triton.gate.release()
    sending.put_and_wait("a", 2)
    for name in "bc":
        sending.put(name, 2)
    sending.put("new", 1)
    assert [name for name, _, _ in sending.all()[3:]] == ["a", "new", "b", "c"]


def test_nothing_is_sent_after_the_end(sending: Sending) -> None:
    cancelled = FinishReason.CANCELLED
    sending.put_and_wait("a", 1)
    sending.put("a", finish=cancelled)
    sending.put("a", 2)
    sending.put("a", finish=cancelled)
    sending.outbox.fail(sending.stream("a"), RequestError("late"))
    assert sending.all() == [("a", [1], False), ("a", [], True)]


def test_an_error_follows_the_tokens_before_it(sending: Sending) -> None:
    sending.put_and_wait("a", 1)
    sending.put("a", 2)
    sending.outbox.fail(sending.stream("a"), RequestError("broken"))
    sending.outbox.fail(sending.stream("b"), RequestError("never began"))
    assert sending.all() == [("a", [1], False), ("b", "never began", True), ("a", [2], False), ("a", "broken", True)]


def test_a_response_that_cannot_be_sent_ends_its_request_and_delays_no_other(sending: Sending) -> None:
    sending.outbox.put(sending.stream("bad", broken=True), Tokens([1]))
    sending.put("a", 1)
    sending.outbox.put(sending.stream("bad"), Tokens([2]))
    assert sending.all() == [("bad", "the engine failed on this request", True), ("a", [1], False)]


def test_calls_run_between_responses(sending: Sending) -> None:
    seen: list[int] = []
    sending.put_and_wait("a", 1)
    sending.outbox.call(lambda: seen.append(len(sending.triton.taken)))
    sending.put("a", 2)
    sending.all()
    assert seen == [1]


def test_rows_are_merged_with_their_tokens(sending: Sending) -> None:
    tokens = Tokens([1], logprobs=[-1.0], top_ids=[[1, 2]], top_logprobs=[[-1.0, -2.0]], cached_tokens=4)
    tokens.extend(Tokens([3], logprobs=[-3.0], top_ids=[[3, 4]], top_logprobs=[[-3.0, -4.0]]))
    assert (tokens.ids, tokens.logprobs) == ([1, 3], [-1.0, -3.0])
    assert (tokens.top_ids, tokens.top_logprobs) == ([[1, 2], [3, 4]], [[-1.0, -2.0], [-3.0, -4.0]])
    assert tokens.cached_tokens == 4 and tokens.finish is None
    sending.all()


def test_the_streams_of_a_group_share_a_response(sending: Sending) -> None:
    for name in ("g1", "h1", "g2", "g3"):
        sending.put(name, 1)
    sending.put("g1", 2)
    sending.turn_and_wait()
    sending.put("g2", 2)
    assert sending.all() == [
        ("g3", [("g1", [1, 2]), ("g2", [1]), ("g3", [1])], False),
        ("h1", [("h1", [1])], False),
        ("g2", [("g2", [2])], False),
    ]


def test_a_group_waits_together_while_triton_is_slow(sending: Sending) -> None:
    sending.put_and_wait("a", 1)
    for token in (1, 2):
        for name in ("g1", "g2"):
            sending.put(name, token)
        sending.turn()
    assert sending.all()[1:] == [("g2", [("g1", [1, 2]), ("g2", [1, 2])], False)]


def test_each_stream_that_ends_has_a_last_response_of_its_own(sending: Sending) -> None:
    end = FinishReason.LENGTH
    for name in ("g1", "g2", "g3"):
        sending.put(name, 1)
    sending.turn_and_wait()
    sending.put("g1", 2)
    for name in ("g2", "g3"):
        sending.put(name, 2, finish=end)
    sending.put("g2", 3, finish=end)
    sending.turn()
    sending.triton.gate.release()
    assert sending.triton.asked.acquire(timeout=WAIT)
    sending.put("g1", 3, finish=end)
    assert sending.all()[1:] == [
        ("g2", [("g1", [2]), ("g2", [2])], True),
        ("g3", [("g3", [2])], True),
        ("g1", [("g1", [3])], True),
    ]


def test_a_failed_stream_of_a_group_leaves_the_others(sending: Sending) -> None:
    sending.put("g1", 1)
    sending.put("g2", 1)
    sending.outbox.fail(sending.stream("g1"), RequestError("broken"))
    sending.outbox.fail(sending.stream("g3"), RequestError("never began"))
    assert sending.all() == [
        ("g1", [("g2", [1]), ("g1", [1], "broken")], True),
        ("g3", [("g3", [], "never began")], True),
    ]


def test_a_row_that_cannot_be_built_ends_its_own_request(sending: Sending) -> None:
    for name, token in (("g1", 1), ("g2", None), ("g3", 3)):
        sending.put(name, token)  # type: ignore[arg-type] # the fault
    sending.turn_and_wait()
    for name in ("g1", "g2"):
        sending.put(name, 4)
    assert sending.all() == [
        ("g2", [("g1", [1]), ("g3", [3]), ("g2", [], "the engine failed on this request")], True),
        ("g1", [("g1", [4])], False),
    ]


def test_a_batch_that_cannot_be_sent_ends_those_in_it_once(sending: Sending) -> None:
    sending.put("g1", 1)
    sending.stream("g2", broken=True)
    sending.put("g2", 1)
    sending.turn_and_wait()
    sending.outbox.fail(sending.stream("g1"), RequestError("broken"))
    failed = "the engine failed on this request"
    assert sending.all() == [("g1", failed, True), ("g2", failed, True)]


def test_a_batch_that_cannot_be_built_ends_those_in_it_and_no_others(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(rows: list[Any]) -> list[Any]:
        if rows[0][0].startswith("g"):
            raise OverflowError("no such tensor")
        return rows

    monkeypatch.setattr(outbox, "batch_tensors", failing)
    for name in ("g1", "g2"):
        sending.put(name, 1)
    sending.put("g1", 2)
    sending.turn_and_wait()
    sending.put("g1", 3)
    for name in ("h1", "i"):
        sending.put(name, 1)
    failed = "the engine failed on this request"
    assert sending.all() == [
        ("g1", failed, True),
        ("g2", failed, True),
        ("i", [1], False),
        ("h1", [("h1", [1])], False),
    ]


def test_what_a_failed_stream_still_had_to_send_is_dropped(sending: Sending) -> None:
    def send(ids: list[int]) -> None:
        sending.triton.take("g1", ids, False)
        raise RuntimeError("no such request")

    sending.stream("g1").reply.send = send
    sending.put("g1", 1)
    sending.turn_and_wait()
    for name in ("g1", "g2"):
        sending.put(name, 2)
    sending.turn()
    assert sending.all()[1:] == [("g1", "the engine failed on this request", True), ("g2", [("g2", [2])], False)]
