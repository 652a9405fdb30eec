# SPDX-License-Identifier: Apache-2.0
"""The processes that share an engine: how they find each other, ask each other, and end."""

import asyncio
import os
import uuid
from typing import Any

import pytest

from engines import peers as peers_module
from engines.peer_link import MAX_BYTES
from engines.peers import Peers

WAIT = 30.0


class Family:
    """Peers of one model, here on one loop. Each answers with its number and what it was asked."""

    def __init__(self, count: int) -> None:
        self.model, self.count = f"m{uuid.uuid4().hex}", count
        self.lost: list[int] = []
        self.asked: list[tuple[int, str]] = []

    def make(self, index: int) -> Peers:
        async def answer(question: str, about: Any) -> Any:
            self.asked.append((index, question))
            if question == "fail":
                raise ZeroDivisionError
            if question == "wait":
                await asyncio.sleep(WAIT)
            return [index, about]

        return Peers(self.model, index, self.count, answer, lambda: self.lost.append(index))

    async def start(self) -> list[Peers]:
        made = [self.make(index) for index in range(self.count)]
        # The others look for the first before it is there.
        starts = [asyncio.create_task(one.start()) for one in reversed(made)]
        await asyncio.wait_for(asyncio.gather(*starts), WAIT)
        return made


async def test_every_process_asks_all_others() -> None:
    family = Family(3)
    made = await family.start()
    for one in made:
        answers = await one.ask_all("stop", {"id": 'a "strange"\nid \ud800'})
        about = {"id": 'a "strange"\nid \ud800'}
        assert answers == {index: [index, about] for index in range(3) if index != one.index}
    for one in reversed(made):
        await one.close()


async def test_a_question_that_is_too_long_does_not_end_the_connection() -> None:
    family = Family(2)
    first, second = await family.start()
    for one, other in ((first, 1), (second, 0)):
        assert await one.ask_all("stop", "x" * MAX_BYTES) == {}
        assert await one.ask_all("stop", "y") == {other: [other, "y"]}
    assert family.lost == []
    await second.close()
    await first.close()


async def test_the_first_gives_what_the_others_wait_for() -> None:
    family = Family(2)
    first, second = await family.start()
    waiting = asyncio.create_task(second.given())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    first.give(["addresses"])
    assert await waiting == ["addresses"] == await second.given()
    await second.close()
    await first.close()


async def test_an_engine_that_does_not_start_ends_the_wait_of_the_others() -> None:
    first, second = await Family(2).start()
    waiting = asyncio.create_task(second.given())
    await asyncio.sleep(0.05)
    await first.close()
    with pytest.raises(RuntimeError, match="the process that starts the engine has ended"):
        await waiting
    await second.close()


async def test_processes_of_two_loads_do_not_mix() -> None:
    """While a model is loaded again those of the old load still run."""
    old, new = Family(2), Family(2)
    new.model = old.model
    old_first, old_second = await old.start()
    new_first, new_second = await new.start()
    assert await new_second.ask_all("old?") == {0: [0, None]} and (0, "old?") in new.asked
    assert await old_first.ask_all("new?") == {1: [1, None]} and (1, "new?") in old.asked
    await old_first.close()
    assert await new_first.ask_all("still?") == {1: [1, None]}
    for one in (old_second, new_second, new_first):
        await one.close()


async def test_the_first_lets_the_others_end_before_it_closes() -> None:
    family = Family(3)
    made = await family.start()
    await made[0].close()
    assert sorted(family.asked) == [(1, "end"), (2, "end")]
    await asyncio.sleep(0.05)
    assert family.lost == []
    assert await made[1].ask_all("stop") == {}
    for one in made[1:]:
        await one.close()


async def test_a_first_process_that_dies_is_noticed_and_another_is_not() -> None:
    family = Family(3)
    first, second, third = await family.start()
    await third.close()
    assert await first.ask_all("stop") == {1: [1, None]} and await second.ask_all("stop") == {0: [0, None]}
    # As when it is killed: the connections end, and nothing is said.
    for link in (*first._links.values(), *first._strangers):
        link.close()
    while not family.lost:
        await asyncio.sleep(0.01)
    assert family.lost == [1]
    await second.close()
    await first.close()


async def test_a_process_that_fails_or_stands_still_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "ANSWER_TIMEOUT_S", 0.05)
    first, second = await Family(2).start()
    assert await first.ask_all("fail") == {} == await first.ask_all("wait")
    assert await first.ask_all("stop") == {1: [1, None]}
    await second.close()
    await first.close()


async def test_a_missing_first_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "FIND_TIMEOUT_S", 0.2)
    with pytest.raises(RuntimeError, match="did not begin"):
        await Family(2).make(1).start()


async def test_only_processes_of_the_same_tritonserver_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(2)
    first = family.make(0)
    await first.start()
    monkeypatch.setattr(peers_module, "FIND_TIMEOUT_S", 0.2)
    first._tritonserver += 1
    with pytest.raises(RuntimeError, match="did not begin"):
        await family.make(1).start()
    await first.close()


async def test_who_joins_is_tied_to_the_first() -> None:
    first, second = await Family(2).start()
    assert second._first_pid == os.getpid()
    with second.tied_to_first():
        pass
    second._first_pid = 2**22 + 1
    with pytest.raises(RuntimeError, match="has ended"), second.tied_to_first():
        pass
    await second.close()
    await first.close()


async def test_all_processes_count_what_runs() -> None:
    first, second, third = await Family(3).start()
    assert (first.running(5), second.running(7), third.running(0)) == (5, 12, 12)
    assert first.running(0) == 7
    await third.close()
    await second.close()
    assert first.running(1) == 1
    await first.close()
