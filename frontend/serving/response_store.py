# SPDX-License-Identifier: Apache-2.0
"""Stored responses, which later requests continue: one SQLite file that all frontends of a machine share.

A response is stored with the items that its request added and those of its answer, so that a dialogue takes space only
once. A dialogue is a response with all that continue it, in however many branches: it has one owner, so that no API key
sees another's, and is kept or deleted as a whole, so that a put costs the same in a long one. Write-ahead logging keeps
the file whole if a process dies in the middle of a write, and lets all read meanwhile.
"""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import orjson

from common.errors import RequestError
from common.files import reason
from frontend.settings import Settings, SettingsError
from frontend.telemetry.metrics import STORED_RESPONSES

logger = logging.getLogger(__name__)

VERSION = 2  # of the tables; a file of another version is refused
DAY = 86_400
PATIENCE = 2.0  # seconds that a finished answer waits to be stored; half of them for the lock of another process
BACKGROUND_PATIENCE = 0.1  # seconds that what nobody waits for waits for that lock
TIDY_EVERY = 60.0  # seconds
TIDY_BYTES = 2**20  # deleted at once: meanwhile nobody writes
USE_MATTERS = 60.0  # seconds after which the use of a dialogue is noted again
SHARE = 4  # a dialogue takes at most this part of the file

_TABLES = (
    "CREATE TABLE dialogues (number INTEGER PRIMARY KEY, owner TEXT NOT NULL, used REAL NOT NULL, "
    "bytes INTEGER NOT NULL)",
    "CREATE INDEX dialogues_used ON dialogues (used)",
    # size: bytes of the items. about: the response as JSON, without its output. What is large comes last in a row.
    "CREATE TABLE responses (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, dialogue INTEGER NOT NULL, "
    "previous TEXT, size INTEGER NOT NULL, about BLOB NOT NULL)",
    "CREATE INDEX responses_dialogue ON responses (dialogue)",
    "CREATE TABLE items (number INTEGER PRIMARY KEY, "
    "response INTEGER NOT NULL REFERENCES responses (number) ON DELETE CASCADE, "
    "id TEXT NOT NULL, output INTEGER NOT NULL, item BLOB NOT NULL)",
    "CREATE INDEX items_response ON items (response)",
    f"PRAGMA user_version = {VERSION}",
)
_FIND = (
    "SELECT responses.number, dialogue, bytes FROM responses JOIN dialogues ON dialogues.number = dialogue "
    "WHERE id = :id AND owner = :owner AND used >= :oldest"
)
# A response and those before it, the last first.
_CHAIN = (
    "WITH RECURSIVE chain (number, previous, size, dialogue, used) AS ("
    "SELECT responses.number, previous, size, dialogue, used FROM responses "
    "JOIN dialogues ON dialogues.number = dialogue WHERE id = :id AND owner = :owner AND used >= :oldest UNION ALL "
    "SELECT before.number, before.previous, before.size, before.dialogue, used FROM chain JOIN responses AS before "
    "ON before.id = chain.previous AND before.dialogue = chain.dialogue) SELECT * FROM chain"
)

T = TypeVar("T")


class NotStored(Exception):
    """Why a response is not stored."""


class ResponseStore:
    """The store of one process. Raises SettingsError if the file cannot be used.

    SQLite's calls block, so threads make them: one writes and one reads, which waits for no writer.
    """

    def __init__(self, path: str, *, max_age: float, max_bytes: int, max_dialogue: int) -> None:
        """Open or create the file.

        max_age: seconds that a dialogue is kept after its last use. max_dialogue: bytes of a response's items with
        those before it, because they become one request.
        """
        self._max_age, self._max_bytes, self._max_dialogue = max_age, max_bytes, max_dialogue
        try:
            # SQLite gives its other files the permissions of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = _open(path)
            self._reader = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=False)
            self._reader.execute("PRAGMA query_only = ON")
        except (OSError, sqlite3.Error, ValueError) as error:
            raise SettingsError(
                f"--response-store={path!r}: expected a file of stored responses: {reason(error)}"
            ) from None
        # Deleting comes after the answers, so there is room for those that come meanwhile; then none is stored.
        self._writer.execute(f"PRAGMA max_page_count = {max_bytes * 5 // 4 // self._pragma('page_size')}")
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="response-store")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="response-store-reads")
        self._untidy = asyncio.Event()
        self._tidying: asyncio.Task[None] | None = None

    @classmethod
    def configured(cls, settings: Settings) -> "ResponseStore | None":
        """Open the store that the settings name; None without one."""
        if settings.response_store is None:
            return None
        return cls(
            settings.response_store,
            max_age=settings.response_store_days * DAY,
            max_bytes=settings.response_store_bytes,
            max_dialogue=settings.max_body_bytes,
        )

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Raise SettingsError if the store of the settings cannot be used."""
        if (store := cls.configured(settings)) is not None:
            store._reader.close()
            store._writer.close()

    def start(self) -> None:
        """Begin to delete what is too old or too much, now and from time to time."""
        self._tidying = asyncio.create_task(self._keep_tidy())

    async def close(self) -> None:
        """Finish what is being written and close the file."""
        if self._tidying is not None:
            self._tidying.cancel()
            with suppress(asyncio.CancelledError):
                await self._tidying
        # The last to close empties the log, so it must be the one that may write.
        await self._run(self._reads, self._reader.close)
        await self._run(self._writes, self._writer.close)
        self._reads.shutdown()
        self._writes.shutdown()

    async def put(
        self, owner: str, response: dict[str, Any], items: list[dict[str, Any]], patience: float = PATIENCE
    ) -> bool:
        """Store a response and its request's items, which have ids. Returns whether it is stored.

        patience: seconds that this takes at most, whatever others do to the file.
        """
        begun_by = time.monotonic() + patience / 2
        try:
            async with asyncio.timeout(patience):
                outgrown = await self._run(self._writes, lambda: self._put(owner, response, items, begun_by))
        except (sqlite3.Error, TypeError, TimeoutError, NotStored) as error:
            logger.error("a response could not be stored: %s", error if str(error) else "its turn did not come")
            STORED_RESPONSES.labels("failed").inc()
            return False
        if outgrown:
            self._untidy.set()
        STORED_RESPONSES.labels("ok").inc()
        return True

    async def dialogue(self, owner: str, response_id: str) -> list[dict[str, Any]] | None:
        """Return the items of a response and of all before it, the oldest first; None if one of them is not there.

        This is a use of the dialogue. Raises RequestError if the items are too large for one request.
        """
        return await self._read(lambda: self._dialogue(owner, response_id))

    async def input_items(
        self, owner: str, response_id: str, *, limit: int, descending: bool, after: str | None
    ) -> bytes | None:
        """Return a page of the items that led to a response, as JSON; None if it, or one before it, is not there.

        after: the id of the last item of the page before. Raises RequestError if there is no such item.
        """
        return await self._read(lambda: self._input_items(owner, response_id, limit, descending, after))

    async def get(self, owner: str, response_id: str) -> bytes | None:
        """Return a response as JSON; None if it is not there."""
        return await self._read(lambda: self._get(owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response, which those after it then miss. Returns whether it was there."""
        try:
            deleted = await self._run(self._writes, lambda: self._delete(owner, response_id))
        except sqlite3.Error as error:
            logger.error("a stored response could not be deleted: %s", error)
            raise RequestError("The response cannot be deleted at the moment", kind="unavailable") from None
        if deleted:
            self._untidy.set()
        return deleted

    async def tidy(self) -> None:
        """Delete the dialogues that are too old, and those used longest ago while the file is too large.

        What is deleted is overwritten, in the log of writes too.
        """
        try:
            # Answers are stored between these steps.
            while await self._run(self._writes, self._delete_some):
                pass
            await self._run(self._writes, self._empty_log)
        except sqlite3.Error as error:
            logger.warning("old responses could not be deleted, which is tried again: %s", error)

    async def _keep_tidy(self) -> None:
        while True:
            self._untidy.clear()
            await self.tidy()
            with suppress(TimeoutError):
                async with asyncio.timeout(TIDY_EVERY):
                    await self._untidy.wait()

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    async def _read(self, work: Callable[[], T]) -> T:
        def in_snapshot() -> T:
            with self._reader:
                self._reader.execute("BEGIN")
                return work()

        try:
            return await self._run(self._reads, in_snapshot)
        except sqlite3.Error as error:
            logger.error("the stored responses cannot be read: %s", error)
            raise RequestError("The stored responses cannot be read at the moment", kind="unavailable") from None

    @contextmanager
    def _writing(self, patience: float) -> Iterator[sqlite3.Connection]:
        """Write what the block does, or nothing if it fails. patience: seconds to wait for other processes."""
        self._writer.execute(f"PRAGMA busy_timeout = {max(0, int(patience * 1000))}")
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer

    def _put(self, owner: str, response: dict[str, Any], items: list[dict[str, Any]], begun_by: float) -> bool:
        """Store a response. Returns whether the file is then too large."""
        rows = [(item["id"], False, orjson.dumps(item)) for item in items]
        rows += [(item["id"], True, orjson.dumps(item)) for item in response["output"]]
        about = orjson.dumps({name: value for name, value in response.items() if name != "output"})
        size = sum(len(item) for _, _, item in rows)
        with self._writing(begun_by - time.monotonic()) as database:
            dialogue = self._use(owner, response["previous_response_id"], size + len(about))
            row = (response["id"], dialogue, response["previous_response_id"], size, about)
            sql = "INSERT INTO responses (id, dialogue, previous, size, about) VALUES (?, ?, ?, ?, ?)"
            number = database.execute(sql, row).lastrowid
            sql = "INSERT INTO items (response, id, output, item) VALUES (?, ?, ?, ?)"
            database.executemany(sql, [(number, *one) for one in rows])
            if time.monotonic() > begun_by:
                # Whoever waited is about to be told, or knows, that it is not stored.
                raise NotStored("its turn came too late")
        return self._size() > self._max_bytes

    def _use(self, owner: str, previous: str | None, added: int) -> int:
        """Return the number of the dialogue that goes on after a response, or of a new one. added: bytes."""
        found = None if previous is None else self._writer.execute(_FIND, self._key(owner, previous)).fetchone()
        if previous is not None and found is None:
            # Nobody could continue it, and it would be kept apart from the rest of its dialogue.
            raise NotStored("the response that it continues was deleted meanwhile")
        _, number, size = found or (None, None, 0)
        if size + added > self._max_bytes // SHARE:
            raise NotStored(f"its dialogue would be larger than {self._max_bytes // SHARE} bytes")
        sql = (
            "INSERT INTO dialogues VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET used = excluded.used, bytes = excluded.bytes RETURNING number"
        )
        (number,) = self._writer.execute(sql, (number, owner, time.time(), size + added)).fetchall()[0]
        return int(number)

    def _note_use(self, dialogue: int) -> None:
        """Note that a dialogue is used now; if another process writes now, its next use will be noted."""
        with suppress(sqlite3.Error), self._writing(BACKGROUND_PATIENCE) as database:
            sql = "UPDATE dialogues SET used = ? WHERE number = ? AND used >= ?"
            database.execute(sql, (time.time(), dialogue, self._oldest()))

    def _delete(self, owner: str, response_id: str) -> bool:
        with self._writing(PATIENCE / 2) as database:
            found = database.execute(_FIND, self._key(owner, response_id)).fetchone()
            if found is not None:
                self._drop(found[0])
        return found is not None

    def _drop(self, number: int) -> int:
        """Delete a response, and its dialogue if that is empty then. Returns the number of bytes."""
        sql = "DELETE FROM responses WHERE number = ? RETURNING dialogue, size + length(about)"
        dialogue, size = self._writer.execute(sql, (number,)).fetchall()[0]
        self._writer.execute("UPDATE dialogues SET bytes = bytes - ? WHERE number = ?", (size, dialogue))
        sql = "DELETE FROM dialogues WHERE number = ? AND NOT EXISTS (SELECT 1 FROM responses WHERE dialogue = ?)"
        self._writer.execute(sql, (dialogue, dialogue))
        return int(size)

    def _delete_some(self) -> bool:
        """Delete some of what is too old or too much. Returns whether there may be more."""
        deleted, oldest = 0, self._oldest()
        with self._writing(BACKGROUND_PATIENCE) as database:
            while deleted < TIDY_BYTES:
                sql = "SELECT number, used FROM dialogues ORDER BY used LIMIT 1"
                dialogue, used = database.execute(sql).fetchone() or (None, oldest)
                # To somewhat less than the limit, so that this is not for every answer.
                if dialogue is None or (used >= oldest and self._size() <= self._max_bytes * 15 // 16):
                    return False
                # From now on nobody finds any of it.
                database.execute("UPDATE dialogues SET used = 0 WHERE number = ?", (dialogue,))
                sql = "SELECT number FROM responses WHERE dialogue = ? LIMIT 1"
                deleted += self._drop(*database.execute(sql, (dialogue,)).fetchone()) + self._pragma("page_size")
        return True

    def _empty_log(self) -> None:
        """Write the log into the file; if somebody reads just now, the next time does it."""
        self._writer.execute(f"PRAGMA busy_timeout = {int(BACKGROUND_PATIENCE * 1000)}")
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _key(self, owner: str, response_id: str | None) -> dict[str, Any]:
        """Return what the queries find a response by."""
        return {"id": response_id, "owner": owner, "oldest": self._oldest()}

    def _oldest(self) -> float:
        """Return the time of the last use that is recent enough."""
        return time.time() - self._max_age

    def _size(self) -> int:
        """Return the bytes in use; pages that are free are used again before the file grows."""
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _pragma(self, name: str) -> int:
        return int(self._writer.execute(f"PRAGMA {name}").fetchone()[0])

    def _get(self, owner: str, response_id: str) -> bytes | None:
        found = self._reader.execute(_FIND, self._key(owner, response_id)).fetchone()
        if found is None:
            return None
        number = found[0]
        (about,) = self._reader.execute("SELECT about FROM responses WHERE number = ?", (number,)).fetchone()
        sql = "SELECT item FROM items WHERE response = ? AND output ORDER BY number"
        output = [orjson.Fragment(item) for (item,) in self._reader.execute(sql, (number,))]
        return bytes(about[:-1]) + b',"output":' + orjson.dumps(output) + b"}"

    def _chain(self, owner: str, response_id: str) -> list[tuple[int, str | None, int, int, float]] | None:
        """Return the rows of a response and of all before it, the last first; None if one of them is not there."""
        rows = self._reader.execute(_CHAIN, self._key(owner, response_id)).fetchall()
        return rows if rows and rows[-1][1] is None else None

    def _dialogue(self, owner: str, response_id: str) -> list[dict[str, Any]] | None:
        rows = self._chain(owner, response_id)
        if rows is None:
            return None
        if sum(size for _, _, size, _, _ in rows) > self._max_dialogue:
            raise RequestError(f"The stored dialogue is larger than {self._max_dialogue} bytes")
        *_, dialogue, used = rows[0]
        if used < time.time() - USE_MATTERS:
            self._writes.submit(self._note_use, dialogue)
        sql = "SELECT item FROM items WHERE response = ? ORDER BY number"
        return [orjson.loads(item) for row in reversed(rows) for (item,) in self._reader.execute(sql, row[:1])]

    def _input_items(
        self, owner: str, response_id: str, limit: int, descending: bool, after: str | None
    ) -> bytes | None:
        rows = self._chain(owner, response_id)
        if rows is None:
            return None
        last = rows[0][0]
        sql = "SELECT number, id FROM items WHERE response = ? AND NOT (output AND response = ?) ORDER BY number"
        listed = [found for row in reversed(rows) for found in self._reader.execute(sql, (row[0], last))]
        if descending:
            listed.reverse()
        ids = [item_id for _, item_id in listed]
        if after is not None and after not in ids:
            raise RequestError("after must be the id of an item of this list", param="after")
        start = 0 if after is None else ids.index(after) + 1
        page = listed[start : start + limit]
        sql = "SELECT item FROM items WHERE number = ?"
        data = [orjson.Fragment(self._reader.execute(sql, (number,)).fetchone()[0]) for number, _ in page]
        ends = {"first_id": page[0][1], "last_id": page[-1][1]} if page else {"first_id": None, "last_id": None}
        return orjson.dumps({"object": "list", "data": data, **ends, "has_more": start + limit < len(listed)})


def _open(path: str) -> sqlite3.Connection:
    """Open the file, with its tables. Raises sqlite3.Error or ValueError if it is anything else."""
    database = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        # A process that dies loses nothing; a machine without power may lose the last responses, never the file.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "journal_size_limit = 16777216"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten.
        database.execute("PRAGMA secure_delete = ON")
        with database:
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0 and database.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                for statement in _TABLES:
                    database.execute(statement)
            elif version != VERSION:
                raise ValueError(f"its version is {version}, not {VERSION}")
    except BaseException:
        database.close()
        raise
    return database
