# SPDX-License-Identifier: Apache-2.0
"""Find stop words of several ids, for engines that support only single stop ids."""

from collections import deque
from dataclasses import replace

from engines.engine import Generation, Put, Tokens


class StopWordsMatcher:
    """Finds the first of several id sequences in a stream of ids. Single ids are left to the engine.

    min_tokens: a sequence that ends within so many ids is passed over, as engines pass over single ids.
    """

    def __init__(self, stop_words: list[list[int]], min_tokens: int = 0) -> None:
        self._early = min_tokens
        self._words = [tuple(words) for words in stop_words if len(words) > 1]
        self._recent: deque[int] = deque(maxlen=max((len(words) for words in self._words), default=1))

    def feed(self, ids: list[int]) -> int | None:
        """Add new ids; returns how many of them there are up to and including the end of a match, or None."""
        if not self._words:
            return None
        for count, token in enumerate(ids, 1):
            self._recent.append(token)
            recent = tuple(self._recent)
            self._early -= 1
            if self._early < 0 and any(recent[-len(words) :] == words for words in self._words):
                return count
        return None


def let_stop(generation: Generation, put: Put) -> tuple[Generation, Put]:
    """The generation and its `put` for an engine that stop words of several ids shall end.

    Without streaming the engine would send all ids after its own end: it streams for the matcher, and `put` gets all of
    them at once.
    """
    if generation.streaming or all(len(words) < 2 for words in generation.stop_words):
        return generation, put
    return replace(generation, streaming=True), _at_once(put)


def _at_once(put: Put) -> Put:
    """Pass the tokens of a generation on after the last."""
    parts: list[Tokens] = []

    def collect(tokens: Tokens) -> None:
        parts.append(tokens)
        if tokens.finish is not None:
            put(_joined(parts))

    return collect


def _joined(parts: list[Tokens]) -> Tokens:
    """All parts as one. By halves: one after the other, the first ids would be copied for each part."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    joined = _joined(parts[:middle])
    joined.extend(_joined(parts[middle:]))
    return joined
