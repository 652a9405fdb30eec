# SPDX-License-Identifier: Apache-2.0
"""Conversations, each with at most one answer under way, which can be stopped at any moment."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

from openai import AsyncOpenAI

from chat_page.turns import Turn

# How often a growing answer is shown anew: each time all of it is compared with what the browser has.
REFRESH_S = 0.05
STOPPED = "Stopped."
_MAX_CONVERSATIONS = 1000
_ID = re.compile(r"[0-9a-f]{32}")


class Conversation:
    """turns: all of it, a growing answer included. error: what went wrong last, as a sentence.

    unanswered: what had been asked when nothing of an answer came; it is no part of the conversation then.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.error = ""
        self.unanswered: list[Turn] = []
        self._task: asyncio.Task[None] | None = None
        self._changed = False

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._task is not None and not self._task.done()

    def ask(self, client: AsyncOpenAI, fields: dict[str, Any], error_message: Callable[[Exception], str]) -> None:
        """Have the last turn answered; returns at once. fields: of the request. sentence: says what an error means."""
        turn = Turn("assistant")
        self.turns.append(turn)
        self.error, self.unanswered = "", []
        self._task = asyncio.create_task(self._write(turn, client, fields, error_message))

    async def updates(self) -> AsyncIterator[None]:
        """Yields now and then while the answer grows, and ends when it is done."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=REFRESH_S)
            if self._changed:
                self._changed = False
                yield

    def stop(self) -> None:
        """Close the answer's connection, so that the server stops the engine; also before its first token."""
        if self._task is not None:
            self._task.cancel()

    def forget(self) -> None:
        """Stop, and remove everything with the pictures' files."""
        self.stop()
        for turn in self.turns:
            for path in turn.pictures:
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
    """The conversations of all tabs by their random ids; the longest unused is forgotten first."""

    def __init__(self, limit: int = _MAX_CONVERSATIONS) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    def get(self, key: str) -> Conversation:
        """The tab's conversation, a new one for a new id; raises ValueError for what is no id."""
        if not _ID.fullmatch(key):
            raise ValueError("no id of a conversation")
        conversation = self._kept.setdefault(key, Conversation())
        self._kept.move_to_end(key)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)[1].forget()
        return conversation
