# SPDX-License-Identifier: Apache-2.0
"""The logprobs of plain completions: parallel lists, where a chat has one object per token."""

from collections.abc import Sequence
from typing import Any


class CompletionLogprobs:
    """Converts one choice's entries in order. top: alternatives per token besides the token itself."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._offset = 0

    def convert(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The next entries; `text_offset` goes on from the last call. A prompt's first token has no logprob."""
        tokens = [entry["token"] for entry in entries]
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [self._alternatives(entry) for entry in entries],
            "text_offset": offsets,
        }

    def _alternatives(self, entry: dict[str, Any]) -> dict[str, float] | None:
        if entry["logprob"] is None:
            return None
        best = {one["token"]: one["logprob"] for one in entry["top_logprobs"][: self._top]}
        return best if entry["token"] in best else best | {entry["token"]: entry["logprob"]}
