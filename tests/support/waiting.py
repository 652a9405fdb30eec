# SPDX-License-Identifier: Apache-2.0
"""Bounded waits on a running stack."""

import re
import time
from collections.abc import Callable

import httpx

from scripts.launcher import Stack

MODEL = "smollm2-135m-instruct"
# Long, as test machines may be slow.
PATIENCE_S = 120.0


def running_requests(stack: Stack) -> float:
    """The number of requests inside the engine, from Triton's metrics endpoint."""
    text = httpx.get(stack.metrics_url, timeout=PATIENCE_S).text
    gauges = r"triton_chat_engine_(?:running|waiting)\{.*\}"
    if stack.engine is not None:
        gauges = r'nv_trt_llm_request_metrics\{.*request_type="active".*\}'
    found = re.findall(rf"^{gauges} ([0-9.e+]+)$", text, re.MULTILINE)
    assert len(found) == (2 if stack.engine is None else 1), "the engine's gauges are missing from Triton's metrics"
    return sum(map(float, found))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll until the condition holds, or fail. what: names the condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
