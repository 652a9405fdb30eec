# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a schema, or cannot be enforced."""

from common.checks import PositionError


class Contradiction(PositionError):
    """Parts of a schema that no value follows together."""


class Refusals:
    """Refuses what xgrammar cannot enforce. best_effort: leave it out instead."""

    def __init__(self, best_effort: bool) -> None:
        self._best_effort = best_effort

    def refuse(self, where: str, problem: str) -> None:
        """Raise RequestError for what cannot be enforced, unless it may be left out."""
        if not self._best_effort:
            raise PositionError(where, problem)
