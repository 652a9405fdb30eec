# SPDX-License-Identifier: Apache-2.0
"""Counters for Prometheus. With PROMETHEUS_MULTIPROC_DIR set, processes that share a port report as one."""

import os
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from frontend.errors import describe
from frontend.tensors import Delta

REQUESTS = Counter("triton_chat_requests", "Requests by how they ended", ["endpoint", "outcome"])
IN_FLIGHT = Gauge("triton_chat_in_flight", "Requests being served", multiprocess_mode="livesum")
TTFT = Histogram(
    "triton_chat_time_to_first_token_seconds",
    "From admission to the first content",
    ["endpoint"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
PROMPT_TOKENS = Counter("triton_chat_prompt_tokens", "Tokens of prompts", ["endpoint"])
COMPLETION_TOKENS = Counter("triton_chat_completion_tokens", "Tokens of answers", ["endpoint"])


class Ticket:
    """One admitted request, from its admission to its end."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._outcome = "ok"
        self._started = time.perf_counter()
        self._silent = True
        IN_FLIGHT.inc()

    def note(self, delta: Delta) -> None:
        """Count one delta that goes to the client."""
        if self._silent and (delta.text or delta.reasoning or delta.tool_calls):
            self._silent = False
            TTFT.labels(self._endpoint).observe(time.perf_counter() - self._started)
        if delta.prompt_tokens:
            PROMPT_TOKENS.labels(self._endpoint).inc(delta.prompt_tokens)
        if delta.completion_tokens:
            COMPLETION_TOKENS.labels(self._endpoint).inc(delta.completion_tokens)

    def failed(self, error: BaseException) -> None:
        self._outcome = describe(error)[0].code or "invalid_request"

    def close(self) -> None:
        IN_FLIGHT.dec()
        REQUESTS.labels(self._endpoint, self._outcome).inc()


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
