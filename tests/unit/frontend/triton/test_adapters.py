# SPDX-License-Identifier: Apache-2.0
"""The table of an engine's adapters, when answers to reads and changes cross."""

import asyncio
from collections.abc import Iterable, Mapping

import pytest

from common.adapters import Adapter
from common.errors import RequestError
from frontend.triton.adapters import Adapters

Answer = Iterable[Adapter] | Exception
OLD, NEW = Adapter("old", 1, "/old"), Adapter("new", 2, "/new")


class Engine:
    """Answers each question when the test does. asked: what it was asked, with the place of the answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[Mapping[str, str | bool], asyncio.Future[Iterable[Adapter]]]] = []
        self.adapters = Adapters(self._ask, lambda: 1)

    async def _ask(self, change: Mapping[str, str | bool]) -> Iterable[Adapter]:
        answer: asyncio.Future[Iterable[Adapter]] = asyncio.get_running_loop().create_future()
        self.asked.append((change, answer))
        return await answer

    async def answer(self, number: int, answer: Answer) -> None:
        if isinstance(answer, Exception):
            self.asked[number][1].set_exception(answer)
        else:
            self.asked[number][1].set_result(answer)
        await turn()

    @property
    def names(self) -> list[str]:
        return sorted(self.adapters.table)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("read_first", [True, False])
@pytest.mark.parametrize("stale", [[OLD], RequestError("late", kind="unavailable")], ids=["old", "failed"])
async def test_a_read_from_before_a_change_does_not_undo_it(read_first: bool, stale: Answer) -> None:
    engine = Engine()
    read, change = engine.adapters.refresh, lambda: engine.adapters.change({"load_adapter": "new"})
    tasks = []
    for begin in (read, change) if read_first else (change, read):
        tasks.append(asyncio.create_task(begin()))
        await turn()
    at = [bool(change) for change, _ in engine.asked]
    await engine.answer(at.index(True), [OLD, NEW])
    await engine.answer(at.index(False), stale)
    await asyncio.gather(*tasks)
    assert engine.names == ["new", "old"]


async def test_a_change_that_failed_is_followed_by_a_read() -> None:
    engine = Engine()
    reading = asyncio.create_task(engine.adapters.refresh())
    await turn()
    await engine.answer(0, [OLD])
    await reading
    change = asyncio.create_task(engine.adapters.change({"load_adapter": "new"}))
    await turn()
    await engine.answer(1, RequestError("The engine did not answer", kind="unavailable"))
    with pytest.raises(RequestError):
        await change
    reading = asyncio.create_task(engine.adapters.refresh())
    await turn()
    await engine.answer(2, [OLD, NEW])
    await reading
    assert engine.names == ["new", "old"]


async def test_changes_come_one_after_the_other() -> None:
    engine = Engine()
    changes = [asyncio.create_task(engine.adapters.change({"load_adapter": name})) for name in ("old", "new")]
    await turn()
    assert len(engine.asked) == 1
    await engine.answer(0, [OLD])
    await engine.answer(1, [OLD, NEW])
    await asyncio.gather(*changes)
    assert engine.names == ["new", "old"]


async def test_an_answer_that_cannot_be_read_is_logged_and_leaves_the_table(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    for answer in ([OLD], ValueError("no JSON")):
        engine.adapters._asked_at = float("-inf")
        reading = asyncio.create_task(engine.adapters.refresh())
        await turn()
        await engine.answer(-1, answer)  # type: ignore[arg-type] # one of both
        await reading
    assert engine.names == ["old"]
    # Requests within the period do not ask again, and later failures are not logged.
    await engine.adapters.refresh()
    assert len(engine.asked) == 2
    engine.adapters._asked_at = float("-inf")
    reading = asyncio.create_task(engine.adapters.refresh())
    await turn()
    await engine.answer(-1, ValueError("no JSON"))  # type: ignore[arg-type] # no list
    await reading
    assert caplog.text.count("the engine's adapters cannot be read") == 1
