# SPDX-License-Identifier: Apache-2.0
"""Scripts for the fake engines: a JSON file of rules, which a test writes and which is read again for each request.

The first rule whose `contains` is in the decoded prompt is played.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """One scripted answer.

    text (or ids): the answer. sizes: ids per response, the last size repeats. delay_s: before each response.
    finish: name of a FinishReason; "END_ID" appends the request's end id. error_after: fail after that many responses.
    repeat: repeat the ids until max_tokens, for load tests. hurry: the rest has no delays once this file exists.
    """

    contains: str = ""
    text: str = ""
    ids: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=lambda: [1])
    delay_s: float = 0.0
    finish: str = "END_ID"
    error_after: int | None = None
    repeat: bool = False
    hurry: str | None = None

    def answer(self, tokenizer: Any, max_tokens: int) -> list[int]:
        """The ids of the answer without an end id. tokenizer: a `ChatTokenizer`."""
        ids = self.ids or tokenizer.encode(self.text, add_special_tokens=False)
        return ids * (max_tokens // len(ids) + 1) if self.repeat else ids


def find_rule(script: Path, prompt: str) -> Rule | None:
    """Find the rule for a decoded prompt, or None."""
    rules = (Rule(**fields) for fields in json.loads(script.read_text(encoding="utf-8")))
    return next((rule for rule in rules if rule.contains in prompt), None)


def pieces(ids: list[int], sizes: list[int]) -> Iterator[list[int]]:
    """Divide the ids into responses."""
    start, index = 0, 0
    while start < len(ids):
        size = sizes[min(index, len(sizes) - 1)]
        yield ids[start : start + size]
        start, index = start + size, index + 1
