# SPDX-License-Identifier: Apache-2.0
"""The current request's record: numbers and names for its log line, its metrics and its trace, never its text."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from frontend.errors import describe
from frontend.telemetry.tracing import RequestTrace


@dataclass(slots=True)
class RequestRecord:
    """One HTTP request from its arrival to the last byte of its response.

    request_id: X-Request-Id, the client's or made here. endpoint: as in the metrics; None if no model is asked.
    outcome: "ok" or the code of the first error. model: as the request calls it, None if it is not served; label: its
    name in metrics. key: name of the API key, never the key itself; owner: of the responses that it may see;
    key_models: what it may use, None for all models.
    ttft: seconds to the first content. trace: None if the request is not sampled.
    """

    request_id: str
    method: str
    path: str
    started: float = field(default_factory=time.perf_counter)
    status: int | None = None
    endpoint: str | None = None
    error: BaseException | None = None
    outcome: str = "ok"
    model: str | None = None
    label: str = ""
    key: str | None = None
    owner: str = ""
    key_models: frozenset[str] | None = None
    images: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ttft: float | None = None
    trace: RequestTrace | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.started

    def fail(self, error: BaseException) -> None:
        """Record why the request failed; the first error counts."""
        if self.error is None:
            self.error = error
            self.outcome = describe(error)[0].code or "invalid_request"


CURRENT: ContextVar[RequestRecord | None] = ContextVar("record", default=None)


def current() -> RequestRecord:
    """Return the current request's record; outside of a request, a record that nothing reads."""
    return CURRENT.get() or RequestRecord("", "", "")


def triton_request_id(name: str) -> str:
    """Return a request id for Triton: the current request's id, which the client may have chosen, and a unique name."""
    request_id = current().request_id
    return f"{request_id}/{name}" if request_id else name
