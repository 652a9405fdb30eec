# SPDX-License-Identifier: Apache-2.0
"""Finds fixed strings in text that arrives in pieces, in time linear in the text."""

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

MANY_CHARS = 4096  # of which an automaton takes about a megabyte


class Automaton:
    """An Aho-Corasick automaton: each state is the longest suffix of the text that is a prefix of some marker.

    Immutable once built, so that streams can share it. State 0 is the root.
    """

    def __init__(self, markers: Sequence[str]) -> None:
        self.depth = [0]  # length of the prefix of each state
        self.found = [0]  # length of the longest marker that ends at each state, or 0
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]
        for marker in markers:
            self._insert(marker)
        self._link()
        firsts = "".join(re.escape(first) for first in self._next[0])
        self._first = re.compile(f"[{firsts}]")

    def _insert(self, marker: str) -> None:
        state = 0
        for char in marker:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self.depth.append(self.depth[state] + 1)
                self.found.append(0)
                self._fallback.append(0)
            state = self._next[state][char]
        self.found[state] = len(marker)

    def _link(self) -> None:
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for char, child in self._next[state].items():
                self._fallback[child] = self._step(self._fallback[state], char)
                self.found[child] = self.found[child] or self.found[self._fallback[child]]
                queue.append(child)

    def _step(self, state: int, char: str) -> int:
        while state and char not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(char, 0)

    def run(self, state: int, text: str, start: int) -> tuple[int, int]:
        """Read text[start:] up to the end of the first marker; returns the state and the position there."""
        position, end = start, len(text)
        while position < end:
            if state == 0:
                candidate = self._first.search(text, position)
                if candidate is None:
                    return 0, end
                position = candidate.start()
            state = self._step(state, text[position])
            position += 1
            if self.found[state]:
                return state, position
        return state, position


_short = lru_cache(maxsize=256)(Automaton)
# Each takes up to 17 MB; the choices of one request share it.
_long = lru_cache(maxsize=8)(Automaton)


def _automaton(markers: tuple[str, ...]) -> Automaton:
    return (_long if sum(map(len, markers)) > MANY_CHARS else _short)(markers)


class MarkerScanner:
    """Cuts streamed text at markers, holding back only text that may be the beginning of one.

    The marker that ends first is found; of two that end at the same character, the longer.
    """

    def __init__(self, *markers: str) -> None:
        self._automaton = _automaton(tuple(sorted(set(markers))))
        self._state = 0
        self._held = ""

    def scan(self, text: str, start: int = 0) -> tuple[str, str, int]:
        """Read text[start:] up to the first marker.

        Returns the text that cannot belong to a marker, the marker ("" if none ended), and the position after the
        text read, which is the end of `text` if no marker ended.
        """
        state, position = self._automaton.run(self._state, text, start)
        seen = self._held + text[start:position]
        marker = self._automaton.found[state]
        kept = marker or self._automaton.depth[state]
        clear, tail = seen[: len(seen) - kept], seen[len(seen) - kept :]
        self._state, self._held = (0, "") if marker else (state, tail)
        return clear, tail if marker else "", position

    def flush(self) -> str:
        """The text still held, which is no marker."""
        held, self._held, self._state = self._held, "", 0
        return held
