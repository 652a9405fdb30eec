# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities in the format of plain completions: parallel lists instead of a chat's one object per token."""

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any

_Utf8Decoder = getincrementaldecoder("utf-8")


class CompletionLogprobs:
    """Converts the entries of one choice, in order. top: number of alternatives per token, besides the token itself."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._offset = 0
        self._decoder = _Utf8Decoder("replace")

    def convert(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Convert the next entries; the first token of a prompt has no logprob.

        `text_offset` continues. It counts characters of the text: all tokens of one character have the same.
        """
        offsets: list[int] = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(bytes(entry["bytes"])))
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [self._alternatives(entry) for entry in entries],
            "text_offset": offsets,
        }

    def _alternatives(self, entry: dict[str, Any]) -> dict[str, float] | None:
        if entry["logprob"] is None:
            return None
        best = {one["token"]: one["logprob"] for one in entry["top_logprobs"][: self._top]}
        return best if entry["token"] in best else best | {entry["token"]: entry["logprob"]}
