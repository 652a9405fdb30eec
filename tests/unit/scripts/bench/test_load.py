# SPDX-License-Identifier: Apache-2.0
"""When streams begin, and streams beside those that are measured: they run until those have ended."""

import asyncio
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import Any

from scripts.bench.load import _drive
from scripts.bench.questions import Answer, Question, Sample, Stream


@dataclass
class FakeEndpoint:
    """Plays the endpoint and its client: every answer takes a moment, and `beside` ones until they are cancelled."""

    asked: list[int] = field(default_factory=list)

    def client(self) -> "FakeEndpoint":
        return self

    async def __aenter__(self) -> "FakeEndpoint":
        return self

    async def __aexit__(self, *error: Any) -> None:
        pass

    def prepare(self, question: Question) -> None:
        return None

    async def ask(self, question: Question, prepared: None) -> Answer:
        self.asked.append(question.output_tokens)
        await asyncio.sleep(0.001)
        return Sample(0.0, (1.0,), 2.0, 1, question.output_tokens)


def question(number: int) -> Question:
    return Question((), (1,), number)


def test_streams_beside_go_round_until_the_measured_ones_end() -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send(time.monotonic())
    endpoint = FakeEndpoint()
    measured = Stream([question(0)], [question(number) for number in range(1, 9)])
    beside = Stream([question(100)], [question(101), question(102)], beside=True)
    asyncio.run(_drive(theirs, endpoint, [measured, beside]))  # type: ignore[arg-type]
    assert ours.recv() == "warm"
    answers, others, _ = ours.recv()
    assert [answer.output_tokens for answer in answers] == list(range(1, 9))
    assert len(others) > 2
    assert [answer.output_tokens for answer in others] == [101 + number % 2 for number in range(len(others))]
    assert endpoint.asked[:2] == [0, 100]


def test_streams_begin_at_their_times() -> None:
    ours, theirs = multiprocessing.Pipe()
    begin = time.monotonic() + 0.1
    ours.send(begin)
    endpoint = FakeEndpoint()
    streams = [Stream((), [question(number)], after=after) for number, after in ((1, 0.2), (2, 0.0), (3, 0.1))]
    asyncio.run(_drive(theirs, endpoint, streams))  # type: ignore[arg-type]
    assert time.monotonic() >= begin + 0.2
    assert endpoint.asked == [2, 3, 1]
    ours.recv()
    answers, _, _ = ours.recv()
    assert [answer.output_tokens for answer in answers] == [1, 2, 3]
