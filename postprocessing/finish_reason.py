# SPDX-License-Identifier: Apache-2.0
"""The end of an answer, inferred from what an engine sends that does not tell it (TensorRT-LLM's C++ backend)."""

from collections.abc import Collection, Sequence

from common.finish_reason import FinishReason


class EndFinder:
    """Says with which response an answer ended and why; `feed` takes every response in order.

    limit: tokens that the answer may have; None where that is not known. end_ids: ids that end it. An engine may send
    the id that ended the answer or keep it.
    """

    def __init__(self, limit: int | None, end_ids: Collection[int]) -> None:
        self._limit = limit
        self._end_ids = end_ids
        self._count = 0

    def feed(self, ids: Sequence[int], last_token_time_ns: int | None) -> FinishReason | None:
        """The finish reason with the last response, else None.

        last_token_time_ns: absent where timing was not asked for; 0 until the last token has come.
        """
        self._count += len(ids)
        if not ids:
            # Nothing but the end is told without a new token: of a cancelled request, or of an end id that was kept.
            return FinishReason.CANCELLED if last_token_time_ns == 0 else self._reason(ids)
        if last_token_time_ns is not None:
            return self._reason(ids) if last_token_time_ns > 0 else None
        ended = ids[-1] in self._end_ids or (self._limit is not None and self._count >= self._limit)
        return self._reason(ids) if ended else None

    def _reason(self, ids: Sequence[int]) -> FinishReason:
        if ids and ids[-1] in self._end_ids:
            return FinishReason.END_ID
        reached = self._limit is not None and self._count >= self._limit
        return FinishReason.LENGTH if reached else FinishReason.STOP_WORDS
