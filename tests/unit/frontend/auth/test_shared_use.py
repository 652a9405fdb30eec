# SPDX-License-Identifier: Apache-2.0
"""Limits of API keys that several frontends share: in total, and whatever happens to one of them."""

import asyncio
import multiprocessing
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from frontend.auth import shared_use
from frontend.auth.quotas import Limits, Quota
from frontend.auth.shared_use import SharedFile
from tests.fakes.fake_triton import FakeTriton, answer_of, silence
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, frontend_processes
from tests.unit.frontend.auth.test_authenticator import Clock, entry, use


def quota(file: SharedFile, limits: Limits, clock: Clock | None = None, name: str = "alice") -> Quota:
    return Quota(limits, clock or Clock(), file.of(name))


@pytest.fixture
def files(tmp_path: Path) -> list[SharedFile]:
    """The same file, as two processes have it."""
    return [SharedFile(tmp_path / "limits") for _ in range(2)]


def test_a_rate_and_a_burst_hold_in_total(files: list[SharedFile]) -> None:
    clock = Clock()
    one, other = [quota(file, Limits(rate=30, burst=3), clock) for file in files]
    assert [use(one), use(other), use(one), use(other), use(one)] == [None, None, None, 2, 2]
    clock.now += 2
    assert [use(other), use(one)] == [None, 2]


def test_a_clock_that_begins_anew_fills_the_bucket(tmp_path: Path) -> None:
    """The file may outlive the machine's start."""
    before, after = Clock(), Clock()
    before.now = 1_000_000.0
    assert use(quota(SharedFile(tmp_path / "limits"), Limits(rate=30, burst=3), before)) is None
    after.now = 10.0
    assert use(quota(SharedFile(tmp_path / "limits"), Limits(rate=30, burst=3), after)) is None


def test_concurrent_requests_count_in_total(files: list[SharedFile]) -> None:
    one, other = [quota(file, Limits(concurrent=2)) for file in files]
    with one.use(), other.use():
        assert [use(one), use(other)] == [1, 1]
    assert [use(one), use(other)] == [None, None]


def test_each_key_has_its_own_use(files: list[SharedFile]) -> None:
    limits = Limits(concurrent=1)
    with quota(files[0], limits).use():
        assert use(quota(files[1], limits, name="bob")) is None
        assert use(quota(files[1], limits)) == 1
        assert [use(quota(files[at], limits, name="carol")) for at in (0, 1)] == [None, None]


def test_new_limits_do_not_fill_the_bucket(files: list[SharedFile]) -> None:
    """Each process reads a changed file of keys by itself."""
    clock = Clock()
    one, other = [quota(file, Limits(rate=60, burst=2), clock) for file in files]
    assert [use(one), use(other)] == [None, None]
    for each in (one, other):
        each.change(Limits(rate=120, burst=4))
    assert use(one) == 1
    clock.now += 0.5
    assert [use(other), use(one)] == [None, 1]


def _hold(path: Path, entered: "multiprocessing.synchronize.Event") -> None:
    with quota(SharedFile(path), Limits(concurrent=1)).use():
        entered.set()
        signal.pause()


def test_requests_of_a_killed_process_are_dropped(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "limits", entered))
    holder.start()
    try:
        assert entered.wait(60)
        mine = quota(SharedFile(tmp_path / "limits"), Limits(concurrent=1))
        assert use(mine) == 1
    finally:
        holder.kill()
        holder.join()
    assert use(mine) is None


def test_places_of_ended_processes_are_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_use, "PROCESSES", 2)
    files = [SharedFile(tmp_path / "limits") for _ in range(2)]
    with pytest.raises(OSError, match="more than 2 frontends"):
        SharedFile(tmp_path / "limits")
    files[0].words[1] = 2**22 + 1  # an id that no process has
    assert SharedFile(tmp_path / "limits").process == 0


def _use_often(path: Path, times: int) -> None:
    mine = quota(SharedFile(path), Limits(rate=1, burst=2 * times, concurrent=2))
    for _ in range(times):
        with mine.use():
            pass


def test_nothing_is_lost_when_processes_write_at_once(tmp_path: Path) -> None:
    times, path = 1000, tmp_path / "limits"
    context = multiprocessing.get_context("spawn")
    users = [context.Process(target=_use_often, args=(path, times)) for _ in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
        assert user.exitcode == 0
    left = SharedFile(path).of("alice")
    assert (left.tokens, left.in_flight(0)) == (0, 0)


async def test_two_frontends_hold_a_key_to_its_limits_together(tmp_path: Path) -> None:
    triton, keys = FakeTriton(), tmp_path / "keys"
    keys.write_text(entry("alice", "key-a", "concurrent=2") + entry("bob", "key-b", "rate=1 burst=3"))
    (tmp_path / "shared").mkdir()
    await triton.start()
    try:
        async with (
            frontend_processes(triton, 2, tmp_path / "shared", "--api-keys-file", str(keys)) as processes,
            httpx.AsyncClient(timeout=WAIT) as http,
        ):

            async def ask(at: int, key: str) -> int:
                headers = {"Authorization": f"Bearer {key}"}
                return (await http.post(processes[at].url + CHAT, json=HELLO, headers=headers)).status_code

            rated = await asyncio.gather(*(ask(at, "key-b") for at in (0, 1) * 4))
            assert Counter(rated) == {200: 3, 429: 5}
            triton.script = silence
            held = [asyncio.create_task(ask(at, "key-a")) for at in (0, 1)]
            async with asyncio.timeout(WAIT):
                while len(triton.calls) < 3 + 2:
                    await asyncio.sleep(0.01)
            assert [await ask(at, "key-a") for at in (0, 1)] == [429, 429]
            processes[0].process.kill()
            await processes[0].process.wait()
            with pytest.raises(httpx.HTTPError):
                await held[0]
            triton.script = answer_of("x")
            assert await ask(1, "key-a") == 200, "the dead one's request is over"
            held[1].cancel()
            await asyncio.gather(*held, return_exceptions=True)
    finally:
        await triton.stop()
