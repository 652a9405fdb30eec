# SPDX-License-Identifier: Apache-2.0
"""The names of what is measured, without the imports that measuring takes."""

import re
from collections.abc import Mapping

VLLM_SERVE, VLLM_RUST = "vllm-serve", "vllm-rust"
SEVERAL_SERVERS = f"{VLLM_SERVE}:N"
SEVERAL = re.compile(rf"{VLLM_SERVE}:([1-9]\d?)")
# Name on the command line -> kind of the endpoint; all are measured in one start of this stack.
ENDPOINTS: Mapping[str, str] = {"triton-chat": "http", "ensemble": "ensemble", "tensorrt_llm": "tensorrt_llm"}
# As in messages; the N of SEVERAL_SERVERS is a number.
TARGETS = (*ENDPOINTS, "engine", VLLM_SERVE, SEVERAL_SERVERS, VLLM_RUST)


def is_peer(name: str) -> bool:
    """Whether a target is a `vllm serve`."""
    return name in (VLLM_SERVE, VLLM_RUST) or SEVERAL.fullmatch(name) is not None
