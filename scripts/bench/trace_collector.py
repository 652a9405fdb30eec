# SPDX-License-Identifier: Apache-2.0
"""A trace collector for OTLP over HTTP, as OpenTelemetry's Python SDK (protobuf) and Triton (JSON) send it."""

import gzip
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Span:
    """One span; ids in lower-case hex, "" for none; times in seconds since 1970. events: names and times, in order."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    start: float
    end: float
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, float]]


@dataclass(slots=True)
class Collector:
    """A running collector. url: the endpoint for exporters. spans: all that were received."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)


@contextmanager
def receiving(collected: Collector) -> Iterator[None]:
    """Receive spans on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collected.spans += _json(body) if body.startswith(b"{") else _protobuf(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collected.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _protobuf(body: bytes) -> list[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    return [
        Span(
            {one.key: one.value.string_value for one in resource.resource.attributes}.get("service.name", ""),
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano / 1e9,
            span.end_time_unix_nano / 1e9,
            {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
            [(event.name, event.time_unix_nano / 1e9) for event in span.events],
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _json(body: bytes) -> list[Span]:
    return [
        Span(
            _values(resource["resource"]["attributes"]).get("service.name", ""),
            span["name"],
            span["traceId"],
            span["spanId"],
            span.get("parentSpanId", ""),
            int(span["startTimeUnixNano"]) / 1e9,
            int(span["endTimeUnixNano"]) / 1e9,
            _values(span.get("attributes", [])),
            [(event["name"], int(event["timeUnixNano"]) / 1e9) for event in span.get("events", [])],
        )
        for resource in json.loads(body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _values(attributes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}
