# SPDX-License-Identifier: Apache-2.0
"""The rows of one request (common.response_batch) in order."""

from common.response_batch import AnswerRow


class RowOrder:
    """Holds rows back until those before them have come. next: the number of the row that is waited for."""

    def __init__(self) -> None:
        self.next = 0
        self._early: dict[int, AnswerRow] = {}

    @property
    def held(self) -> bool:
        """Whether a row waits for one before it."""
        return bool(self._early)

    def pass_by(self, number: int) -> bool:
        """Count a row that is the next and needs no place here; returns False if `add` is needed."""
        if number != self.next or self._early:
            return False
        self.next += 1
        return True

    def add(self, row: AnswerRow) -> list[AnswerRow]:
        """Take a row, and return those that are in order now."""
        self._early[row.number] = row
        ready: list[AnswerRow] = []
        while (found := self._early.pop(self.next, None)) is not None:
            ready.append(found)
            self.next += 1
        return ready
