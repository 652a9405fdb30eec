# SPDX-License-Identifier: Apache-2.0
"""The file of stored responses: owners, age, size, crashes, and processes that share it."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from common.errors import RequestError
from frontend.serving import response_store
from frontend.serving.response_store import DAY, VERSION, ResponseStore
from frontend.settings import SettingsError

Opener = Callable[..., ResponseStore]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the store of this test, any number of times."""
    stores = []

    def open_store(**limits: Any) -> ResponseStore:
        given = {"max_age": DAY, "max_bytes": 2**24, "max_dialogue": 2**20} | limits
        stores.append(ResponseStore(str(tmp_path / "responses.db"), **given))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()


async def put(store: ResponseStore, name: str, previous: str | None = None, owner: str = "ann", size: int = 0) -> None:
    response = {"id": name, "previous_response_id": previous, "output": [{"id": f"{name}-out", "text": "x" * size}]}
    assert await store.put(owner, response, [{"id": f"{name}-in"}])


async def ids(store: ResponseStore, name: str, owner: str = "ann") -> list[str] | None:
    found = await store.dialogue(owner, name)
    return None if found is None else [item["id"] for item in found]


async def test_a_dialogue_comes_back_in_order(opened: Opener) -> None:
    store = opened()
    await put(store, "a")
    await put(store, "b", "a")
    await put(store, "c", "b")
    await put(store, "other", "a")
    assert await ids(store, "c") == ["a-in", "a-out", "b-in", "b-out", "c-in", "c-out"]
    assert await ids(store, "other") == ["a-in", "a-out", "other-in", "other-out"]


async def test_nobody_sees_what_another_owns(opened: Opener) -> None:
    store = opened()
    await put(store, "a")
    assert await store.get("bob", "a") is None and await ids(store, "a", "bob") is None
    assert not await store.delete("bob", "a")
    # Also not as the beginning of an own one, however that came to be.
    assert not await store.put("bob", {"id": "b", "previous_response_id": "a", "output": []}, [])
    assert rows(store) == ["a"]
    assert await store.get("ann", "a") is not None


async def test_what_follows_a_deleted_response_is_not_continued_without_it(opened: Opener) -> None:
    store = opened()
    await put(store, "a")
    await put(store, "b", "a")
    assert await store.delete("ann", "a") and not await store.delete("ann", "a")
    assert await ids(store, "b") is None and await store.get("ann", "b") is not None


async def test_what_continues_a_response_that_was_deleted_meanwhile_is_not_stored(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    await put(store, "a")
    assert await ids(store, "a") is not None
    assert await store.delete("ann", "a")
    assert not await store.put("ann", {"id": "b", "previous_response_id": "a", "output": []}, [])
    assert rows(store) == [] and "deleted meanwhile" in caplog.text
    assert store._writer.execute("SELECT * FROM dialogues").fetchall() == []


async def test_age_counts_from_the_last_use(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(max_age=10.0)
    now = 1000.0
    monkeypatch.setattr(response_store.time, "time", lambda: now)
    await put(store, "a")
    await put(store, "lonely")
    now += 6
    await put(store, "b", "a")
    now += 6
    assert await ids(store, "b") is not None
    assert await store.get("ann", "lonely") is None
    now += 6
    assert await store.get("ann", "b") is None and await ids(store, "b") is None
    # What is too old is not revived.
    assert not await store.put("ann", {"id": "c", "previous_response_id": "b", "output": []}, [])
    await store.tidy()
    assert rows(store) == []


def rows(store: ResponseStore) -> list[str]:
    return [name for (name,) in store._writer.execute("SELECT id FROM responses ORDER BY id")]


async def test_reading_a_dialogue_is_a_use(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(max_age=1000.0)
    now = 1000.0
    monkeypatch.setattr(response_store.time, "time", lambda: now)
    await put(store, "a")
    await put(store, "lonely")
    for _ in range(3):
        now += 600
        # As a request with store: false does.
        assert await ids(store, "a") is not None
        await store.tidy()
    assert rows(store) == ["a"]


async def test_the_file_does_not_outgrow_its_size(opened: Opener, tmp_path: Path) -> None:
    store = opened(max_bytes=2**20)
    await put(store, "first")
    for number in range(200):
        await put(store, f"r{number:03}", "first" if number % 20 == 0 else None, size=20_000)
        await store.tidy()
    names = rows(store)
    assert 10 < len(names) < 60 and names[-1] == "r199"
    # The first has been used again and again.
    assert "first" in names
    assert await ids(store, "first") is not None and await ids(store, "r180") is not None
    assert (tmp_path / "responses.db").stat().st_size < 2**20 + 2**18


async def test_the_file_does_not_grow_while_nothing_can_be_deleted(opened: Opener, tmp_path: Path) -> None:
    store = opened(max_bytes=2**20)
    body = {"previous_response_id": None, "output": [{"id": "o", "text": "x" * 20_000}]}
    stored = [await store.put("ann", body | {"id": f"r{number}"}, []) for number in range(100)]
    assert stored[0] and not stored[-1]
    await store.tidy()
    await put(store, "next", size=20_000)
    assert (tmp_path / "responses.db").stat().st_size < 2**20 + 2**18 + 2**14


async def test_the_server_deletes_what_is_too_much_by_itself(opened: Opener) -> None:
    store = opened(max_bytes=2**20)
    store.start()
    last = "r0"
    async with asyncio.timeout(60):
        for number in range(200):
            last = f"r{number}"
            body = {"id": last, "previous_response_id": None, "output": [{"id": "o", "text": "x" * 20_000}]}
            while not await store.put("ann", body, []):
                await asyncio.sleep(0.01)
        while len(rows(store)) > 60:
            await asyncio.sleep(0.01)
    assert last in rows(store)


async def test_what_is_too_old_is_deleted_at_the_start(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(opened(), "a")
    now = response_store.time.time() + 2 * DAY
    monkeypatch.setattr(response_store.time, "time", lambda: now)
    store = opened()
    store.start()
    async with asyncio.timeout(60):
        while rows(store):
            await asyncio.sleep(0.01)
    assert store._writer.execute("SELECT * FROM dialogues").fetchall() == []
    assert store._writer.execute("SELECT * FROM items").fetchall() == []


async def test_what_is_large_costs_nobody_else_a_response(opened: Opener) -> None:
    store = opened(max_bytes=2**20)
    for number in range(5):
        await put(store, f"r{number}", owner="bob", size=20_000)
    for size in (2**18, 2**21):
        body = {"id": "large", "previous_response_id": None, "output": [{"id": "o", "text": "x" * size}]}
        assert not await store.put("ann", body, [])
    await store.tidy()
    assert rows(store) == [f"r{number}" for number in range(5)]


async def test_a_dialogue_with_all_its_branches_has_a_share_of_the_file(opened: Opener) -> None:
    store = opened(max_bytes=2**20)
    await put(store, "r00")
    for number in range(1, 13):
        await put(store, f"r{number:02}", "r00", size=21_000)
    body = {"id": "more", "previous_response_id": "r00", "output": [{"id": "o", "text": "x" * 21_000}]}
    assert not await store.put("ann", body, [])
    # What is deleted makes room.
    assert await store.delete("ann", "r12")
    assert await store.put("ann", body, [])
    assert len(rows(store)) == 13


async def test_a_put_costs_the_same_in_a_long_dialogue(opened: Opener) -> None:
    store = opened()
    steps = []
    for number in range(200):
        seen: list[str] = []
        store._writer.set_trace_callback(seen.append)
        await put(store, f"r{number}", f"r{number - 1}" if number else None)
        steps.append(len(seen))
    assert steps[199] == steps[1]
    found = await ids(store, "r199")
    assert found is not None and len(found) == 400


async def test_what_is_deleted_at_once_is_little(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    for number in range(40):
        await put(store, f"r{number}", f"r{number - 1}" if number in range(1, 20) else None, size=100_000)
    now = response_store.time.time() + 2 * DAY
    monkeypatch.setattr(response_store.time, "time", lambda: now)
    left = [len(rows(store))]
    while store._delete_some():
        left.append(len(rows(store)))
    assert left[0] == 40 and rows(store) == []
    assert all(before - after <= 11 for before, after in pairwise(left)) and len(left) >= 4
    assert store._writer.execute("SELECT * FROM dialogues").fetchall() == []


async def test_a_dialogue_that_is_being_deleted_is_not_revived(opened: Opener) -> None:
    store = opened(max_bytes=2**23, max_dialogue=2**21)
    for dialogue in range(5):
        for turn in range(19):
            await put(store, f"r{dialogue}-{turn}", f"r{dialogue}-{turn - 1}" if turn else None, size=100_000)
    assert store._delete_some()
    assert "r0-18" in rows(store) and await store.get("ann", "r0-18") is None
    assert not await store.put("ann", {"id": "next", "previous_response_id": "r0-18", "output": []}, [])
    await store.tidy()
    assert [name for name in rows(store) if name.startswith("r0")] == []
    assert "next" not in rows(store) and await ids(store, "r1-18") is not None


async def test_a_dialogue_that_is_too_large_is_an_error(opened: Opener) -> None:
    store = opened(max_dialogue=50_000)
    await put(store, "a", size=30_000)
    await put(store, "b", "a", size=30_000)
    assert await ids(store, "a") is not None
    with pytest.raises(RequestError, match="larger than 50000 bytes"):
        await store.dialogue("ann", "b")


async def test_several_share_the_file(opened: Opener) -> None:
    stores = [opened() for _ in range(4)]
    await put(stores[0], "r0-0")
    for turn in range(1, 6):
        # Each dialogue changes its store with every turn.
        await asyncio.gather(
            *(put(stores[(at + turn) % 4], f"r{turn}-{at}", f"r{turn - 1}-0" if at == 0 else None) for at in range(20))
        )
    for store in stores:
        found = await ids(store, "r5-0")
        assert found is not None and found[::2] == [f"r{turn}-0-in" for turn in range(6)]
        assert len(rows(store)) == 101


WRITER = """
import asyncio, sys
from frontend.serving.response_store import ResponseStore
async def main():
    store = ResponseStore(sys.argv[1], max_age=1e6, max_bytes=2**24, max_dialogue=2**20)
    previous = None
    for number in range(100_000):
        body = {"id": f"r{number}", "previous_response_id": previous, "output": [{"id": "o", "text": "x" * 50_000}]}
        assert await store.put("ann", body, [{"id": "i"}])
        previous = body["id"] if number % 5 else None
        print(number, flush=True)
asyncio.run(main())
"""


async def test_a_process_that_is_killed_leaves_a_whole_file(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(20)]
        writer.kill()
    store = opened()
    assert store._writer.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # What it has told of is there.
    for number in told:
        assert await ids(store, f"r{number}") is not None
    await put(store, "next", f"r{told[-1]}")


async def test_only_the_server_may_read_the_file(opened: Opener, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await put(opened(), "a")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes and set(modes.values()) == {0o600}


async def test_what_is_deleted_is_gone_from_the_file(tmp_path: Path) -> None:
    store = ResponseStore(str(tmp_path / "responses.db"), max_age=DAY, max_bytes=2**24, max_dialogue=2**20)
    assert await store.put("ann", {"id": "a", "previous_response_id": None, "output": []}, [{"id": "my secret"}])
    assert await store.delete("ann", "a")
    await store.close()
    assert b"my secret" not in (tmp_path / "responses.db").read_bytes()
    assert not (tmp_path / "responses.db-wal").exists()


async def test_what_is_deleted_is_overwritten_while_the_server_runs(opened: Opener, tmp_path: Path) -> None:
    store = opened()
    store.start()
    assert await store.put("ann", {"id": "a", "previous_response_id": None, "output": []}, [{"id": "my secret"}])
    assert any(b"my secret" in path.read_bytes() for path in tmp_path.iterdir())
    assert await store.delete("ann", "a")
    async with asyncio.timeout(60):
        while any(b"my secret" in path.read_bytes() for path in tmp_path.iterdir()):
            await asyncio.sleep(0.01)


async def test_a_locked_file_holds_up_neither_answers_nor_readers(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    await put(store, "a")
    with closing(sqlite3.connect(tmp_path / "responses.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        body = {"id": "b", "previous_response_id": "a", "output": []}
        waiting = asyncio.create_task(store.put("ann", body, [], 600.0))
        async with asyncio.timeout(60):
            # None of these is behind the one that waits for the lock.
            assert await store.get("ann", "a") is not None and await ids(store, "a") == ["a-in", "a-out"]
            late = [store.put("ann", body | {"id": f"late{number}"}, [], 0.01) for number in range(20)]
            assert await asyncio.gather(*late) == [False] * 20
            assert not waiting.done()
            other.execute("ROLLBACK")
            assert await waiting
        # Those of which the answer said that they are not stored have not been stored since.
        await put(store, "c", "b")
        assert rows(store) == ["a", "b", "c"]
        other.execute("BEGIN IMMEDIATE")
        assert not await store.put("ann", body | {"id": "d"}, [], 0.01)
        with pytest.raises(RequestError) as caught:
            await store.delete("ann", "a")
        assert caught.value.kind == "unavailable" and "deleted" in caught.value.message


async def test_a_write_that_comes_too_late_is_not_done(opened: Opener) -> None:
    store = opened()
    go_on = threading.Event()

    class Slow(list[Any]):
        """Items that take until `go_on`."""

        def __iter__(self) -> Any:
            assert go_on.wait(60)
            return super().__iter__()

    body = {"id": "a", "previous_response_id": None, "output": []}
    assert not await store.put("ann", body, Slow(), 0.01)
    go_on.set()
    await put(store, "b")
    assert rows(store) == ["b"]


async def test_a_full_disk_costs_no_answer(opened: Opener) -> None:
    store = opened()
    store._writer.execute("PRAGMA max_page_count = 1")
    body = {"id": "a", "previous_response_id": None, "output": [{"id": "o", "text": "x" * 100_000}]}
    assert not await store.put("ann", body, [])
    await put(store, "b")


async def test_a_file_that_cannot_be_read_is_an_error_of_ours(opened: Opener) -> None:
    store = opened()
    store._writer.execute("DROP TABLE dialogues")
    with pytest.raises(RequestError) as caught:
        await store.get("ann", "a")
    assert caught.value.kind == "unavailable"


def other_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE mine (a)")
    database.commit()
    database.close()


def newer_version(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.write_bytes(b"no database" * 1000), other_database, newer_version]
)
def test_another_file_stops_the_start(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    path = tmp_path / "responses.db"
    make(path)
    with pytest.raises(SettingsError, match="--response-store="):
        ResponseStore(str(path), max_age=DAY, max_bytes=2**24, max_dialogue=2**20)
    with pytest.raises(SettingsError, match="--response-store="):
        ResponseStore(str(tmp_path / "missing" / "x.db"), max_age=DAY, max_bytes=2**24, max_dialogue=2**20)
