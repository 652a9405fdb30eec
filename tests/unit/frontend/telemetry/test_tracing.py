# SPDX-License-Identifier: Apache-2.0
"""Traces: off by default, one trace per request, continued in Triton."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from frontend.telemetry.tracing import Tracing
from tests.fakes.collector import Collector, Span, collector
from tests.fakes.fake_triton import Call, failure, silence
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with collector() as running:
        yield running


@pytest.fixture
async def served(collecting: Collector) -> AsyncIterator[Serving]:
    async with serving(otlp_endpoint=collecting.url) as running:
        yield running


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys; from frontend.app import create_app; from frontend.settings import Settings; create_app(Settings());"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("endpoint", "environment", "on"),
    [
        (None, {}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ("http://127.0.0.1:1", {}, True),
        ("http://127.0.0.1:1", {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_when_traces_are_on(endpoint: str | None, environment: dict[str, str], on: bool) -> None:
    assert (Tracing.configured(endpoint, environment) is not None) == on


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_trace_that_continues_in_triton(
    served: Serving, collecting: Collector, stream: bool
) -> None:
    part = {"type": "image_url", "image_url": {"url": PIXEL}}
    body = {"messages": [{"role": "user", "content": [part]}], "stream": stream}
    response = await served.http.post(CHAT, json=body, headers=SAMPLED | {"X-Request-Id": "traced"})
    assert response.status_code == 200
    spans = by_name(collecting.wait_for(lambda spans: len(spans) == 3))
    request, image, triton = spans[f"POST {CHAT}"], spans["image fetch"], spans["triton ensemble"]
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert (request.parent, image.parent, triton.parent) == (PARENT, request.span_id, request.span_id)
    assert [name for name, _ in triton.events] == ["first_token"]
    assert image.attributes == {"url.scheme": "data", "http.response.body.size": 23}
    assert request.attributes["triton_chat.request_id"] == "traced"
    assert request.attributes["gen_ai.usage.output_tokens"] == 2
    assert request.attributes["http.response.status_code"] == 200
    # Triton reads the trace from the stream's metadata, a Python engine from the request's parameters.
    onward = f"00-{TRACE}-{triton.span_id}-01"
    assert served.triton.calls[0].parameters["traceparent"] == onward
    assert [one["traceparent"] for one in served.triton.metadata if "traceparent" in one] == [onward]


async def test_a_request_that_is_not_sampled_uses_the_shared_stream(served: Serving, collecting: Collector) -> None:
    for _ in range(2):
        assert (await served.http.post(CHAT, json=HELLO, headers=UNSAMPLED)).status_code == 200
    assert all("traceparent" not in call.parameters for call in served.triton.calls)
    assert len(served.triton.metadata) == 1
    await served.http.post(CHAT, json=HELLO, headers=SAMPLED)
    assert len(collecting.wait_for(lambda spans: len(spans) >= 2)) == 2


async def test_the_span_of_a_failed_request_has_its_error(served: Serving, collecting: Collector) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield failure("CUDA error with a private-prompt")

    served.triton.script = script
    assert (await served.http.post(CHAT, json=HELLO)).status_code == 500
    spans = collecting.wait_for(lambda spans: len(spans) == 2)
    assert by_name(spans)[f"POST {CHAT}"].attributes["error.type"] == "internal_error"
    assert "private-prompt" not in str(spans)


async def test_a_timeout_of_a_traced_request_stops_it(served: Serving) -> None:
    served.triton.script = silence
    response = await served.http.post(CHAT, json=HELLO, headers=SAMPLED | {"X-Request-Timeout": "0.2"})
    assert response.status_code == 504
    await served.stopped()


async def test_a_broken_traced_stream_fails_its_request(served: Serving) -> None:
    served.triton.script = silence
    asking = asyncio.create_task(served.http.post(CHAT, json=HELLO, headers=SAMPLED))
    async with asyncio.timeout(WAIT):
        while not served.triton.calls:
            await asyncio.sleep(0.01)
    await served.triton.restart()
    assert (await asking).status_code == 503
