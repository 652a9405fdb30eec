# SPDX-License-Identifier: Apache-2.0
"""Stop words of several ids. Engines that know only single stop ids leave these to the adapter."""

from collections import deque


class StopWordsMatcher:
    """Finds the first of several id sequences in a stream of ids; feed, and a match says where it ends."""

    def __init__(self, stop_words: list[list[int]]) -> None:
        self._words = [tuple(words) for words in stop_words if len(words) > 1]
        self._recent: deque[int] = deque(maxlen=max((len(words) for words in self._words), default=1))

    def feed(self, ids: list[int]) -> int | None:
        """The count of these ids up to and including the end of a match, or None."""
        if not self._words:
            return None
        for count, token in enumerate(ids, 1):
            self._recent.append(token)
            recent = tuple(self._recent)
            if any(recent[-len(words) :] == words for words in self._words):
                return count
        return None
