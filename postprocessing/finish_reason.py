# SPDX-License-Identifier: Apache-2.0
"""The finish reason of engines that do not report it (TensorRT-LLM's C++ backend), inferred from their responses."""

from collections.abc import Collection, Sequence

from common.finish_reason import FinishReason


class FinishReasonInference:
    """Finds the last response of an answer and the reason of its end; `feed` takes every response in order.

    limit: tokens that the answer may have; None if unknown. end_ids: ids that end it; an engine may or may not send
    the id that ended the answer.
    """

    def __init__(self, limit: int | None, end_ids: Collection[int]) -> None:
        self._limit = limit
        self._end_ids = end_ids
        self._count = 0

    def feed(self, ids: Sequence[int], last_token_time_ns: int | None) -> FinishReason | None:
        """The finish reason if this is the last response, else None.

        last_token_time_ns: None if timing was not requested; 0 until the last token.
        """
        self._count += len(ids)
        if not ids:
            # A response without a token is the last: the request was cancelled, or the end id is not sent.
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
