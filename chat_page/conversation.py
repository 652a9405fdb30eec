# SPDX-License-Identifier: Apache-2.0
"""Conversations, each with at most one answer in progress, which can be stopped at any time."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

from openai import AsyncOpenAI

from chat_page.turns import Turn

# How often a growing answer is sent to the browser: each time gradio compares all of it with the last state.
REFRESH_S = 0.05
STOPPED = "Stopped."
_MAX_CONVERSATIONS = 1000
_ID = re.compile(r"[0-9a-f]{32}")


class Conversation:
    """A conversation and its answer in progress.

    turns: includes a growing answer. error: message of the last error, or "". unanswered: the last question if it got
    no answer at all; it is then no longer in `turns`.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.error = ""
        self.unanswered: list[Turn] = []
        self._task: asyncio.Task[None] | None = None
        self._changed = False

    @property
    def busy(self) -> bool:
        """Whether an answer is in progress."""
        return self._task is not None and not self._task.done()

    def ask(self, client: AsyncOpenAI, fields: dict[str, Any], error_message: Callable[[Exception], str]) -> None:
        """Request an answer to the last turn; returns at once.

        fields: arguments of the client's call. error_message: turns an exception into a message for the visitor.
        """
        turn = Turn("assistant")
        self.turns.append(turn)
        self.error, self.unanswered = "", []
        self._task = asyncio.create_task(self._write(turn, client, fields, error_message))

    async def updates(self) -> AsyncIterator[None]:
        """Yield at intervals while the answer grows, until it is complete."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=REFRESH_S)
            if self._changed:
                self._changed = False
                yield

    def stop(self) -> None:
        """Close the answer's connection, so that the server stops generating."""
        if self._task is not None:
            self._task.cancel()

    def forget(self) -> None:
        """Stop, and delete all turns with their files."""
        self.stop()
        for turn in self.turns:
            for path in turn.files:
                path.unlink(missing_ok=True)
        self.turns, self.error, self.unanswered = [], "", []

    async def _write(
        self, turn: Turn, client: AsyncOpenAI, fields: dict[str, Any], error_message: Callable[[Exception], str]
    ) -> None:
        complete = False
        try:
            async with await client.chat.completions.create(**fields) as stream:
                async for chunk in stream:
                    turn.take(chunk)
                    self._changed = True
            complete = True
        except asyncio.CancelledError:
            turn.note = STOPPED
        except Exception as error:
            self.error = error_message(error)
        if turn.empty and not complete and turn in self.turns:
            place = self.turns.index(turn)
            self.unanswered = self.turns[place - 1 : place]
            del self.turns[place - 1 : place + 1]


class Conversations:
    """The conversations of all tabs by their random ids. Beyond `limit` the least recently used is deleted."""

    def __init__(self, limit: int = _MAX_CONVERSATIONS) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    def get(self, key: str) -> Conversation:
        """Find a tab's conversation, or begin one for a new id. Raises ValueError if `key` is not an id."""
        if not _ID.fullmatch(key):
            raise ValueError("no id of a conversation")
        conversation = self._kept.setdefault(key, Conversation())
        self._kept.move_to_end(key)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)[1].forget()
        return conversation
