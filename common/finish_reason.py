# SPDX-License-Identifier: Apache-2.0
"""Why an engine ended a generation, as `tensorrt_llm` reports it in its output `finish_reason`."""

from enum import IntEnum


class FinishReason(IntEnum):
    """The end of a generation, numbered as in TensorRT-LLM's executor (FinishReason in executor/types.h)."""

    END_ID = 1
    STOP_WORDS = 2
    LENGTH = 3
    TIMED_OUT = 4
    CANCELLED = 5
