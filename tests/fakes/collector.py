# SPDX-License-Identifier: Apache-2.0
"""A trace collector for OTLP over HTTP, as OpenTelemetry's Python SDK (protobuf) and Triton (JSON) send it."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_S = 30.0


@dataclass
class Span:
    """One span; ids in lower-case hex, "" for none."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    attributes: dict[str, Any]
    events: list[str]


@dataclass
class Collector:
    """A running collector. url: the endpoint for exporters. spans: all received spans."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)

    def wait_for(self, condition: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait until the condition holds for the received spans; returns all of them."""
        end = time.monotonic() + PATIENCE_S
        while not condition(self.spans):
            assert time.monotonic() < end, f"only these spans came: {[(one.service, one.name) for one in self.spans]}"
            time.sleep(0.05)
        return list(self.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    collected = Collector()

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
        yield collected
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _protobuf(body: bytes) -> list[Span]:
    return [
        Span(
            {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"],
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
            [event.name for event in span.events],
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _json(body: bytes) -> list[Span]:
    return [
        Span(
            _values(resource["resource"]["attributes"])["service.name"],
            span["name"],
            span["traceId"],
            span["spanId"],
            span.get("parentSpanId", ""),
            _values(span.get("attributes", [])),
            [event["name"] for event in span.get("events", [])],
        )
        for resource in json.loads(body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _values(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}
