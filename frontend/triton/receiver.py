# SPDX-License-Identifier: Apache-2.0
"""Where the responses to one request go."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from frontend.triton.model_health import ModelHealth
from frontend.triton.response_queue import ResponseQueue
from frontend.triton.row_order import RowOrder


class Target(Protocol):
    """Where the requests of one served model go in Triton."""

    health: ModelHealth

    @property
    def batches(self) -> bool:
        """Whether one response may hold tokens of several requests."""

    def engines(self) -> Sequence[str]:
        """Return the engines that a request of this model may run on: several while the model is reloaded."""


@dataclass(slots=True)
class Receiver:
    """The queue that gets the responses to a request, as one of its choices. rows: of a request in a response group."""

    queue: ResponseQueue
    choice: int
    target: Target
    sent_at: float
    answered: bool = False
    rows: RowOrder = field(default_factory=RowOrder)

    def take_text(self, number: int, text: str, tokens: int | None) -> bool:
        """Take a row of a batch that is only text, if it is the next; returns False if it is not."""
        if not self.rows.pass_by(number):
            return False
        self.answered = True
        self.queue.put_text(self.choice, text, tokens)
        return True
