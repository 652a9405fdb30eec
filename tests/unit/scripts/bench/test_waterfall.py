# SPDX-License-Identifier: Apache-2.0
"""The waterfall: hops from spans, as Triton 2.51, the frontend and vLLM send them."""

import json
import urllib.request
from collections.abc import Sequence

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from scripts.bench.questions import Question, Stream
from scripts.bench.trace_collector import Collector, Span, receiving
from scripts.bench.waterfall import hop_table, report, request_hops, response_hops, traced

TRACE = "ab" * 16


def span(
    name: str,
    start: float,
    end: float,
    *events: tuple[str, float],
    own: str = "",
    parent: str = "",
    **attributes: float,
) -> Span:
    return Span("service", name, TRACE, own or name, parent, start, end, attributes, events)


def step(name: str, start: float, own: str) -> list[Span]:
    """A model's span of 4 ms, whose compute begins after 1 ms and ends after 3."""
    inner = (("COMPUTE_START", start + 0.001), ("COMPUTE_OUTPUT_START", start + 0.003))
    return [
        span(name, start, start + 0.004, own=own),
        span("compute", start + 0.001, start + 0.004, *inner, own=f"{own}c", parent=own),
    ]


def spans() -> Sequence[Span]:
    sends = [("GRPC_SEND_START", at) for at in (10.104, 10.124, 10.144)]
    return [
        span("POST /v1/chat/completions", 10.001, 10.2),
        span("triton ensemble", 10.002, 10.19, ("first_token", 10.106)),
        span("InferRequest", 10.003, 10.19, ("GRPC_WAITREAD_START", 9.0), ("GRPC_WAITREAD_END", 10.003), *sends),
        span("ensemble", 10.004, 10.18),
        *step("preprocessing", 10.005, "p"),
        *step("vit", 10.008, "v"),
        *step("tensorrt_llm", 10.011, "t"),
        Span("vllm", "llm_request", TRACE, "e", "t", 10.012, 10.18, {"gen_ai.latency.time_to_first_token": 0.08}, ()),
        # In any order, as they come.
        *step("postprocessing", 10.12, "second"),
        *step("postprocessing", 10.1, "first"),
        *step("postprocessing", 10.14, "third"),
    ]


def test_a_request_by_hop() -> None:
    hops = request_hops(spans(), 10.0, 10.107)
    assert list(hops.items()) == [
        ("client: request sent", 10.0),
        ("frontend: request received", 10.001),
        ("frontend: sent to Triton", 10.002),
        ("tritonserver: request read", 10.003),
        ("ensemble: begun", 10.004),
        ("preprocessing: queued", 10.005),
        ("preprocessing: begun", pytest.approx(10.006)),
        ("preprocessing: ended", pytest.approx(10.008)),
        ("vit: queued", 10.008),
        ("vit: begun", pytest.approx(10.009)),
        ("vit: ended", pytest.approx(10.011)),
        ("tensorrt_llm: queued", 10.011),
        ("tensorrt_llm: begun", pytest.approx(10.012)),
        ("tensorrt_llm: ended", pytest.approx(10.014)),
        ("vLLM: request received", 10.012),
        ("vLLM: first token", pytest.approx(10.092)),
        ("postprocessing: queued", 10.1),
        ("postprocessing: begun", pytest.approx(10.101)),
        ("postprocessing: ended", pytest.approx(10.103)),
        ("tritonserver: first response sent", 10.104),
        ("frontend: first token received", 10.106),
        ("client: first token received", 10.107),
    ]


def test_later_responses_by_hop() -> None:
    second, third = response_hops(spans(), [10.107, 10.126, 10.149])
    assert second == {
        "postprocessing: queued": 10.12,
        "postprocessing: begun": pytest.approx(10.121),
        "postprocessing: ended": pytest.approx(10.123),
        "tritonserver: response sent": 10.124,
        "client: received": 10.126,
    }
    assert (third["tritonserver: response sent"], third["client: received"]) == (10.144, 10.149)


def test_lost_spans_leave_hops_out() -> None:
    left = [one for one in spans() if one.name in ("POST /v1/chat/completions", "postprocessing")]
    hops = request_hops(left, 10.0, 10.107)
    assert list(hops) == [
        "client: request sent",
        "frontend: request received",
        "postprocessing: queued",
        "client: first token received",
    ]
    assert list(response_hops(left, [10.107])) == []
    # One of two requests has a hop in between: the next one is measured from it where it is.
    rows = hop_table([{"a": 0.0, "c": 0.005}, {"a": 1.0, "b": 1.002, "c": 1.006}]).splitlines()[2:]
    assert rows == ["| a | 0.00 |  |", "| b | 2.00 | 2.00 / 2.00 / 2.00 |", "| c | 5.00 | 4.00 / 4.00 / 4.00 |"]


def test_the_report_says_how_many_were_traced() -> None:
    hops = request_hops(spans(), 10.0, 10.107)
    later = list(response_hops(spans(), [10.107, 10.126, 10.149]))
    found = {"requests": [hops], "responses": later, "sent": 8, "failures": {}}
    lines = report(found, "burst of 8")
    assert lines[0] == "A request of a burst of 8, by hop (1 of 8 were traced):"
    assert "| client: first token received | 107.00 | 1.00 / 1.00 / 1.00 |" in lines[1]
    assert lines[2] == "A later response, by hop (2 of those requests):"
    assert report({**found, "requests": []}, "burst") == ["Waterfall: no spans of the 8 requests came."]


def test_few_requests_of_a_burst_are_traced() -> None:
    streams = [Stream([Question((), (1,), 1)], [Question((), (1,), 1)])] * 64
    asked = [question.trace_id for stream in traced(streams, 0) for question in stream.measured]
    ids = [one for one in asked if one]
    assert len(ids) == len(set(ids)) == 16
    assert all(len(one) == 32 for one in ids)
    assert not set(ids) & {question.trace_id for one in traced(streams, 1) for question in one.measured if one}
    assert not any(question.trace_id for stream in traced(streams, 0) for question in stream.warmup)
    assert all(question.trace_id for stream in traced(streams[:4], 0) for question in stream.measured)


def test_spans_in_protobuf_and_in_json() -> None:
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "one"
    made = resource.scope_spans.add().spans.add(name="a", trace_id=b"\1" * 16, span_id=b"\2" * 8)
    made.start_time_unix_nano, made.end_time_unix_nano = 1_500_000_000, 2_500_000_000
    made.events.add(name="x", time_unix_nano=2_000_000_000)
    made.attributes.add(key="n").value.double_value = 0.5
    as_json = {
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "two"}}]},
        "scopeSpans": [
            {
                "spans": [
                    {
                        "name": "b",
                        "traceId": "03",
                        "spanId": "04",
                        "parentSpanId": "05",
                        "startTimeUnixNano": "1000000000",
                    }
                    | {"endTimeUnixNano": "2000000000", "events": [{"name": "y", "timeUnixNano": "1250000000"}]}
                ]
            }
        ],
    }
    collected = Collector()
    with receiving(collected):
        for body in (message.SerializeToString(), json.dumps({"resourceSpans": [as_json]}).encode()):
            urllib.request.urlopen(urllib.request.Request(f"{collected.url}/v1/traces", body), timeout=30).close()
    assert collected.spans == [
        Span("one", "a", "01" * 16, "02" * 8, "", 1.5, 2.5, {"n": 0.5}, [("x", 2.0)]),
        Span("two", "b", "03", "04", "05", 1.0, 2.0, {}, [("y", 1.25)]),
    ]
