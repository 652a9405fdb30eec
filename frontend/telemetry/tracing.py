# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry: spans for each request, its images and its generation in Triton, which continues the same trace.

OpenTelemetry is imported only if a collector is configured. Spans hold numbers and names, never text of a prompt or an
answer, and no URLs.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from frontend import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CLOSE_PATIENCE = 2.0  # seconds at shutdown for the collector to receive the last spans
SERVICE = "triton-chat-frontend"
# OpenTelemetry's own variables for the collector; ours is the setting `otlp_endpoint`.
_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Tracing:
    """Makes spans and sends them in the background by OTLP over HTTP.

    Sampling, batching and the collector's headers are configured with OpenTelemetry's own variables
    (OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME).
    """

    def __init__(self, endpoint: str | None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override these.
        names = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE}
        self._provider = TracerProvider(resource=Resource.create({**names, "service.version": __version__}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("triton_chat", __version__)
        self._context = TraceContextTextMapPropagator()

    @classmethod
    def configured(cls, endpoint: str | None, environment: Mapping[str, str] = os.environ) -> "Tracing | None":
        """Return a Tracing if a collector is named, by its base URL `endpoint` or by OpenTelemetry's own variables."""
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        return cls(endpoint) if endpoint or any(environment.get(name) for name in _VARIABLES) else None

    def begin(self, method: str, headers: Mapping[str, str]) -> "RequestTrace | None":
        """Begin the trace of a request, below the client's `traceparent` if it sent one; None if it is not sampled."""
        from opentelemetry.trace import SpanKind

        parent = self._context.extract(
            {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        )
        span = self._tracer.start_span(method, parent, SpanKind.SERVER)
        return RequestTrace(self, span) if span.is_recording() else None

    def child(self, span: "Span", name: str) -> "Span":
        """Begin a span below another, of the kind CLIENT."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        return self._tracer.start_span(name, set_span_in_context(span), SpanKind.CLIENT)

    def headers(self, span: "Span") -> dict[str, str]:
        """Return `traceparent`, and `tracestate` if there is one, for a trace that continues below a span."""
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._context.inject(carrier, set_span_in_context(span))
        return carrier

    async def close(self) -> None:
        """Send the last spans, within CLOSE_PATIENCE seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._provider.force_flush), CLOSE_PATIENCE)


class RequestTrace:
    """The spans of one sampled request."""

    def __init__(self, tracing: Tracing, span: "Span") -> None:
        self._tracing = tracing
        self._span = span
        self._triton: Span | None = None
        self.id = f"{span.get_span_context().trace_id:032x}"

    def begin_triton(self, requests: int) -> dict[str, str]:
        """Begin the span of the generation in Triton. Returns the headers with which Triton continues the trace."""
        self._triton = self._tracing.child(self._span, "triton ensemble")
        self._triton.set_attribute("triton_chat.choices", requests)
        return self._tracing.headers(self._triton)

    def first_token(self) -> None:
        """Add the event of the first content to the span."""
        if self._triton is not None:
            self._triton.add_event("first_token")

    def end_triton(self) -> None:
        """End the span of the generation, if one is open."""
        if self._triton is not None:
            self._triton.end()
            self._triton = None

    def begin_image(self, scheme: str) -> "ImageSpan":
        """Begin the span of fetching one image."""
        return ImageSpan(self._tracing.child(self._span, "image fetch"), scheme)

    def end(self, name: str, outcome: str, attributes: Mapping[str, str | int | float | None]) -> None:
        """End the request's span. outcome: as in the metrics. Attributes that are None are left out."""
        self.end_triton()
        self._span.update_name(name)
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})
        if outcome != "ok":
            _failed(self._span, outcome)
        self._span.end()


class ImageSpan:
    """The span of fetching one image."""

    def __init__(self, span: "Span", scheme: str) -> None:
        self._span = span
        span.set_attribute("url.scheme", scheme)

    def end(self, outcome: str, size: int) -> None:
        """End the span. outcome: as in the metrics. size: in bytes."""
        self._span.set_attribute("http.response.body.size", size)
        if outcome != "ok":
            _failed(self._span, outcome)
        self._span.end()


def _failed(span: "Span", why: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR, why)
    span.set_attribute("error.type", why)
