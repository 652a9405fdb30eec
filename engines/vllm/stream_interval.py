# SPDX-License-Identifier: Apache-2.0
"""How many tokens vLLM gathers of a request before it hands them over.

Each hand-over costs the engine's loop about 20 us, which it then lacks for sending: with hundreds of streams a few
tokens at a time are sent sooner than each by itself. vLLM has a fixed number for that, its option `stream_interval`;
here it follows the load.

An engine that computes on the CPU does so on the cores that carry its tokens on: each response takes about a
millisecond of them. There the number of streams tells how many tokens to gather.
"""

import os
from typing import Any

from vllm.platforms import current_platform

# Tokens; beyond that nothing is gained any more.
MOST = 16
# Below what responses hold, so that the interval falls when the lag is over.
_SHARE = 0.75
# On a CPU, streams a core at which a token more is gathered.
_STREAMS_PER_CORE = 2


class Interval:
    """processor: vLLM's `OutputProcessor`. Used on the loop that the processor runs in, between its steps."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._least: int = processor.stream_interval
        self._cores = len(os.sched_getaffinity(0)) if current_platform.is_cpu() else None

    @property
    def tokens(self) -> int:
        """What the next requests begin with."""
        return int(self._processor.stream_interval)

    def follow(self, tokens_per_response: float, streams: int) -> None:
        """Gather somewhat fewer tokens than responses have held lately, which merge what could not be sent in time."""
        shared = streams // (_STREAMS_PER_CORE * self._cores) if self._cores else 0
        tokens = max(self._least, min(MOST, max(shared, int(_SHARE * tokens_per_response))))
        if tokens == self._processor.stream_interval:
            return
        self._processor.stream_interval = tokens
        for state in self._processor.request_states.values():
            if state.detokenizer is not None:
                _set(state, tokens)


def _set(state: Any, tokens: int) -> None:
    """Of a running request. vLLM notes what it has handed over only while it gathers.

    So whoever begins to gather must be told, and whoever has begun cannot leave off: what waits would be lost.
    """
    if state.stream_interval > 1:
        state.stream_interval = max(2, tokens)
    else:
        state.sent_tokens_offset = state.detokenizer.num_output_tokens()
        state.stream_interval = tokens
