# SPDX-License-Identifier: Apache-2.0
"""What is known of the request at hand, for its log line, its metrics and its trace. Never what it says."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frontend.errors import describe

if TYPE_CHECKING:
    from frontend.telemetry.tracing import RequestTrace

CURRENT: ContextVar["RequestRecord | None"] = ContextVar("record", default=None)


@dataclass(slots=True)
class RequestRecord:
    """One HTTP request from its arrival to the last byte of its answer.

    request_id: X-Request-Id, the client's or made here. endpoint: as in the metrics; None where no model is asked.
    key: name of the API key, never the key. ttft: seconds to the first content. trace: None where it is not sampled.
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
    key: str | None = None
    images: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ttft: float | None = None
    trace: "RequestTrace | None" = None

    @property
    def seconds(self) -> float:
        """Since the arrival."""
        return time.perf_counter() - self.started

    def fail(self, error: BaseException) -> None:
        """How the request ended; the first error counts."""
        if self.error is None:
            self.error = error
            self.outcome = describe(error)[0].code or "invalid_request"


def current() -> RequestRecord:
    """The record of the request at hand; outside of one, a record that nobody reads."""
    return CURRENT.get() or RequestRecord("", "", "")


def triton_request_id(name: str) -> str:
    """A request id for Triton that begins with the request's own, which a client chose; `name` makes it unique."""
    request_id = current().request_id
    return f"{request_id}/{name}" if request_id else name
