# SPDX-License-Identifier: Apache-2.0
"""Stored responses, which later requests continue: one SQLite file that all frontends of a machine share.

A row is one response with the items that its request added, so that a dialogue takes space only once. Rows are found by
their owner's name too, so that no API key sees another's. Write-ahead logging keeps the file whole if a process dies in
the middle of a write, and lets other frontends read meanwhile. What was used longest ago is deleted first.
"""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from common.errors import RequestError
from frontend.settings import Settings, SettingsError
from frontend.telemetry.metrics import STORED_RESPONSES

logger = logging.getLogger(__name__)

VERSION = 1  # of the table; a file of another version is refused
DAY = 86_400
BUSY_PATIENCE = 5.0  # seconds to wait for another process's write
DELETED_AT_ONCE = 16

_TABLE = (
    "CREATE TABLE responses (id TEXT PRIMARY KEY, owner TEXT NOT NULL, previous TEXT, used REAL NOT NULL, "
    "input BLOB NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX responses_used ON responses (used)",
    f"PRAGMA user_version = {VERSION}",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored response. input: the items of its request, without those of the responses before it, as JSON."""

    id: str
    previous: str | None
    input: bytes
    body: bytes

    def items(self) -> list[dict[str, Any]]:
        """Return the items that it adds to its dialogue: those of the request and those of the answer."""
        return [*orjson.loads(self.input), *orjson.loads(self.body)["output"]]


class ResponseStore:
    """The store of one process. Raises SettingsError if the file cannot be used.

    SQLite's calls block, so a thread of its own makes them.
    """

    def __init__(self, path: str, *, max_age: float, max_bytes: int, max_dialogue: int) -> None:
        """Open or create the file.

        max_age: seconds that a response is kept after its last use. max_dialogue: bytes of a response with all before
        it, because they become one request.
        """
        self._max_age, self._max_bytes, self._max_dialogue = max_age, max_bytes, max_dialogue
        try:
            # SQLite gives its other files the permissions of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = _open(path)
        except (OSError, sqlite3.Error, ValueError) as error:
            raise SettingsError(f"response_store={path!r}: expected a file of stored responses: {error}") from None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="response-store")

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
            store._database.close()

    async def put(self, owner: str, response: dict[str, Any], items: list[dict[str, Any]]) -> bool:
        """Store a response and its request's items, and keep those before it as long. Returns whether it is stored."""
        try:
            await self._run(lambda: self._put(owner, response, items))
        except (sqlite3.Error, TypeError):
            logger.exception("a response could not be stored")
            STORED_RESPONSES.labels("failed").inc()
            return False
        STORED_RESPONSES.labels("ok").inc()
        return True

    async def dialogue(self, owner: str, response_id: str) -> list[Stored] | None:
        """Return a response and all before it, the oldest first; None if one of them is not there.

        Raises RequestError if they are too large for one request.
        """
        return await self._read(lambda: self._dialogue(owner, response_id))

    async def get(self, owner: str, response_id: str) -> Stored | None:
        """Return a response; None if it is not there."""
        return await self._read(lambda: self._get(owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response, which those after it then miss. Returns whether it was there."""
        return await self._read(lambda: self._delete(owner, response_id))

    async def close(self) -> None:
        """Finish what is being written and close the file."""
        await self._run(self._database.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await self._run(work)
        except sqlite3.Error as error:
            logger.error("the stored responses cannot be read: %s", error)
            raise RequestError("The stored responses cannot be read at the moment", kind="unavailable") from None

    def _put(self, owner: str, response: dict[str, Any], items: list[dict[str, Any]]) -> None:
        now = time.time()
        row = (
            response["id"],
            owner,
            response["previous_response_id"],
            now,
            orjson.dumps(items),
            orjson.dumps(response),
        )
        with self._database:
            self._database.execute("DELETE FROM responses WHERE used < ?", (now - self._max_age,))
            self._database.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)", row)
            before = row[2]
            while before is not None:
                used = "UPDATE responses SET used = ? WHERE id = ? AND owner = ? RETURNING previous"
                (before,) = self._database.execute(used, (now, before, owner)).fetchone() or (None,)
            oldest = "DELETE FROM responses WHERE id IN (SELECT id FROM responses ORDER BY used LIMIT ?)"
            while self._size() > self._max_bytes and self._database.execute(oldest, (DELETED_AT_ONCE,)).rowcount > 0:
                pass

    def _delete(self, owner: str, response_id: str) -> bool:
        with self._database:
            sql = "DELETE FROM responses WHERE id = ? AND owner = ?"
            return self._database.execute(sql, (response_id, owner)).rowcount > 0

    def _size(self) -> int:
        """Return the bytes in use; pages that are free are used again before the file grows."""
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    def _get(self, owner: str, response_id: str) -> Stored | None:
        sql = "SELECT id, previous, input, body FROM responses WHERE id = ? AND owner = ? AND used >= ?"
        row = self._database.execute(sql, (response_id, owner, time.time() - self._max_age)).fetchone()
        return None if row is None else Stored(*row)

    def _dialogue(self, owner: str, response_id: str) -> list[Stored] | None:
        found: list[Stored] = []
        size = 0
        before: str | None = response_id
        while before is not None:
            stored = self._get(owner, before)
            if stored is None:
                return None
            size += len(stored.input) + len(stored.body)
            if size > self._max_dialogue:
                raise RequestError(f"The stored dialogue is larger than {self._max_dialogue} bytes")
            found.append(stored)
            before = stored.previous
        return found[::-1]


def _open(path: str) -> sqlite3.Connection:
    """Open the file, with its table. Raises sqlite3.Error or ValueError if it is anything else."""
    database = sqlite3.connect(path, BUSY_PATIENCE, isolation_level="IMMEDIATE", check_same_thread=False)
    try:
        # A process that dies loses nothing; a machine without power may lose the last responses, never the file.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "journal_size_limit = 16777216"):
            database.execute(f"PRAGMA {pragma}")
        # What is deleted is overwritten.
        database.execute("PRAGMA secure_delete = ON")
        with database:
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0 and database.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                for statement in _TABLE:
                    database.execute(statement)
            elif version != VERSION:
                raise ValueError(f"its version is {version}, not {VERSION}")
    except BaseException:
        database.close()
        raise
    return database
