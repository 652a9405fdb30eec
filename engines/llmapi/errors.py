# SPDX-License-Identifier: Apache-2.0
"""Tell refusals of a request by TensorRT-LLM's executor from faults of the engine."""

import re

from common.errors import RequestError

# What the executor says of wrong requests, and the input that each is about (TensorRT-LLM 1.2 to 1.4:
# executor/base_worker.py; py_executor.py and guided_decoder.py in _torch/pyexecutor).
_REFUSALS = (
    (re.compile("`default_max_tokens` .*must be greater than 0"), "input_ids"),
    (re.compile("Token ID out of range"), "input_ids"),
    (re.compile("Guided decoding error: (?!internal error)"), "guided_decoding_guide"),
)


def executor_refusal(error: Exception) -> RequestError | None:
    """The RequestError for the executor's error about a wrong request; None for any other error.

    The executor has one error, `RequestError`, for all that fails: a full KV cache and a fault of CUDA too.
    """
    if type(error).__name__ == "RequestError":
        for words, param in _REFUSALS:
            if words.search(str(error)):
                return RequestError(str(error), param=param)
    return None
