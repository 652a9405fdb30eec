# SPDX-License-Identifier: Apache-2.0
"""Ends an answer at the first stop string, and never sends a part of one."""

from collections.abc import Sequence

from common.markers import MarkerScanner


class StopMatcher:
    """Cuts streamed text at the first stop string.

    Only a prefix of a stop string is held back, so text is never delayed longer than necessary. The stop string that
    is complete first ends the answer; of two complete at the same character, the longer is matched.

    stops: the stop strings; empty ones are ignored. include_stop: keep the matched stop string in the text.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        markers = [stop for stop in stops if stop]
        self._scanner = MarkerScanner(*markers) if markers else None
        self._include_stop = include_stop
        self.matched: str | None = None

    def feed(self, text: str, *, early: bool = False) -> str:
        """The text that can be sent now; empty once a stop string has matched.

        early: a stop string that is complete in this text ends nothing; one that only begins in it may end the answer.
        """
        if self.matched is not None:
            return ""
        if self._scanner is None:
            return text
        if early:
            return self._pass_over(self._scanner, text)
        clear, stop, _ = self._scanner.scan(text)
        if stop:
            self.matched = stop
        return clear + stop if self._include_stop else clear

    def _pass_over(self, scanner: MarkerScanner, text: str) -> str:
        passed: list[str] = []
        position = 0
        while position < len(text):
            clear, stop, position = scanner.scan(text, position)
            passed += (clear, stop)
        return "".join(passed)

    def flush(self) -> str:
        """The text still held back at the end of the answer."""
        if self._scanner is None or self.matched is not None:
            return ""
        return self._scanner.flush()
