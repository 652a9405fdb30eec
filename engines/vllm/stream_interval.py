# SPDX-License-Identifier: Apache-2.0
"""Adapt vLLM's option `stream_interval` to the load: how many tokens of a request vLLM collects per hand-over.

Each hand-over costs the engine's loop about 20 us, which are then missing for sending: with hundreds of streams, a few
tokens at a time arrive sooner than one by one.

On a CPU the engine computes on the same cores that send its tokens, and each response takes about a millisecond of
them. There the number of streams also raises the interval.
"""

import os
from typing import Any

from vllm.platforms import current_platform

# Tokens; larger intervals gain nothing.
MOST = 16
# Below 1, so that the interval falls again once responses are sent in time.
_SHARE = 0.75
# On a CPU: the interval grows by one token for each so many streams per core.
_STREAMS_PER_CORE = 2


class StreamInterval:
    """The stream interval of one engine. Used on the loop of vLLM's output processor, between its steps.

    processor: vLLM's `OutputProcessor`.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._least: int = processor.stream_interval
        self._cores = len(os.sched_getaffinity(0)) if current_platform.is_cpu() else None

    @property
    def tokens(self) -> int:
        """The interval of new requests, in tokens."""
        return int(self._processor.stream_interval)

    def adjust(self, tokens_per_response: float, streams: int) -> None:
        """Set the interval somewhat below what responses held lately: they merge what could not be sent in time."""
        shared = streams // (_STREAMS_PER_CORE * self._cores) if self._cores else 0
        tokens = max(self._least, min(MOST, max(shared, int(_SHARE * tokens_per_response))))
        if tokens == self._processor.stream_interval:
            return
        self._processor.stream_interval = tokens
        for state in self._processor.request_states.values():
            if state.detokenizer is not None:
                _set(state, tokens)


def _set(state: Any, tokens: int) -> None:
    """Set the interval of a running request.

    vLLM counts the tokens that it has handed over only if the interval is above 1. So the count is set when a request
    first goes above 1, and the interval never returns to 1: tokens that vLLM still holds would be lost.
    """
    if state.stream_interval > 1:
        state.stream_interval = max(2, tokens)
    else:
        state.sent_tokens_offset = state.detokenizer.num_output_tokens()
        state.stream_interval = tokens
