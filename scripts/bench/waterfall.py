# SPDX-License-Identifier: Apache-2.0
"""Where the time of a request and of a response goes in a burst, hop by hop, from OpenTelemetry's spans.

The stack is started once more with tracing on, after everything else was measured. A few requests of the burst are
traced, each on a gRPC stream of its own; the others are not. The spans are the frontend's, Triton's (of the ensemble
and of each step) and vLLM's; the client adds when it sent the request and when chunks arrived.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scripts.bench.figures import failures, percentile
from scripts.bench.load import Endpoint, run
from scripts.bench.questions import Answer, Sample, Stream
from scripts.bench.trace_collector import Collector, Span, receiving
from scripts.launcher import Stack

# Of a burst; more would be a load of their own.
TRACED = 16
# Only requests that say so are traced.
_SAMPLER = {"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
_ENDPOINT = "TRITON_CHAT_OTLP_ENDPOINT"
# For spans that are sent in the background.
_PATIENCE_S, _QUIET_S = 20.0, 2.0
_STEPS = ("preprocessing", "vit", "tensorrt_llm")
_FIRST = {"first_token": "frontend: first token received"}  # nosec B105 # the frontend's event
_FIRST_TOKEN = "gen_ai.latency.time_to_first_token"  # nosec B105 # an attribute of vLLM's span

# Times of one request or response by hop, in order.
Hops = dict[str, float]


def measure(
    make_stack: Callable[[Sequence[str], Mapping[str, str]], Stack],
    make_streams: Callable[[int], Sequence[Stream]],
    model: str,
    *,
    bursts: int,
    processes: int,
    vllm: bool,
) -> dict[str, Any]:
    """Send bursts to a stack with tracing on; returns the hops of requests and responses, and failures.

    make_stack: from more flags and variables. make_streams: those of a burst. vllm: the engine is vLLM, whose spans are
    asked for.
    """
    collected = Collector()
    with receiving(collected):
        flags = ["--otlp-traces-endpoint", f"{collected.url}/v1/traces"] if vllm else []
        answers: list[Answer] = []
        with make_stack(flags, os.environ | _SAMPLER | {_ENDPOINT: collected.url}) as stack:
            for number in range(bursts):
                streams = traced(make_streams(number), number)
                answers += run(Endpoint("http", stack.url, model), streams, processes, lambda: None).answers
            _settle(collected)
    offset = time.time() - time.monotonic()
    by_trace: dict[str, list[Span]] = {}
    for span in collected.spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    requests: list[Hops] = []
    responses: list[Hops] = []
    for sample in answers:
        if isinstance(sample, Sample) and (spans := by_trace.get(sample.trace_id)):
            times = [chunk + offset for chunk in sample.chunks]
            requests.append(request_hops(spans, sample.sent + offset, times[0]))
            responses += response_hops(spans, times)
    return {"requests": requests, "responses": responses, "sent": len(answers), "failures": failures(answers)}


def traced(streams: Sequence[Stream], number: int) -> list[Stream]:
    """Let every n-th stream's requests be traced. number: of the burst, so that ids differ."""
    step = max(1, len(streams) // TRACED)

    def with_trace(stream: Stream, index: int) -> Stream:
        questions = [
            replace(question, trace_id=f"{(number + 1) * 100_000 + index:026x}{place:06x}")
            for place, question in enumerate(stream.measured)
        ]
        return replace(stream, measured=questions)

    return [with_trace(stream, index) if index % step == 0 else stream for index, stream in enumerate(streams)]


def request_hops(spans: Sequence[Span], sent: float, received: float) -> Hops:
    """Times of a request from the client to its first token back there; spans that were lost leave hops out."""
    hops: Hops = {"client: request sent": sent}
    by_name = {span.name: span for span in sorted(spans, key=lambda span: span.start, reverse=True)}
    root = next((span for span in spans if span.name.startswith("POST ")), None)
    if root is not None:
        hops["frontend: request received"] = root.start
    frontend = by_name.get("triton ensemble")
    if frontend is not None:
        hops["frontend: sent to Triton"] = frontend.start
    grpc = by_name.get("InferRequest")
    if grpc is not None:
        hops |= _events(grpc, {"GRPC_WAITREAD_END": "tritonserver: request read"})
    if "ensemble" in by_name:
        hops["ensemble: begun"] = by_name["ensemble"].start
    for step in _STEPS:
        if step in by_name:
            hops |= _step(step, by_name[step], spans)
    engine = next((span for span in spans if _FIRST_TOKEN in span.attributes), None)
    if engine is not None:
        hops["vLLM: request received"] = engine.start
        hops["vLLM: first token"] = engine.start + float(engine.attributes[_FIRST_TOKEN])
    # The first in time: `by_name` has the earliest of each name.
    if "postprocessing" in by_name:
        hops |= _step("postprocessing", by_name["postprocessing"], spans)
    if grpc is not None:
        hops |= _events(grpc, {"GRPC_SEND_START": "tritonserver: first response sent"})
    if frontend is not None:
        hops |= _events(frontend, _FIRST)
    return hops | {"client: first token received": received}


def response_hops(spans: Sequence[Span], chunks: Sequence[float]) -> Iterator[Hops]:
    """Times of each later response, from the engine's answer in tritonserver to the client. chunks: times there."""
    steps = sorted((span for span in spans if span.name == "postprocessing"), key=lambda span: span.start)
    grpc = next((span for span in spans if span.name == "InferRequest"), None)
    sends = iter([at for name, at in grpc.events if name == "GRPC_SEND_START"] if grpc is not None else [])
    arrivals = iter(chunks)
    for number, step in enumerate(steps):
        hops = _step("postprocessing", step, spans)
        computed = hops.get("postprocessing: ended", step.end)
        sent = next((at for at in sends if at >= computed), None)
        if sent is None:
            return
        hops["tritonserver: response sent"] = sent
        arrived = next((at for at in arrivals if at >= sent), None)
        if arrived is not None:
            hops["client: received"] = arrived
        if number:
            yield hops


def hop_table(hops: Sequence[Hops]) -> str:
    """Markdown table: for each hop the median time since the first, and p50 / p90 of the time since the hop before."""
    names = list(dict.fromkeys(name for one in hops for name in one))
    lines = ["| hop | at, ms p50 | since the hop before, ms p50 / p90 / p99 |", "|---|---:|---:|"]
    # In the order of time: vLLM's engine has a request before the step that passed it on has ended.
    at = {name: percentile([one[name] - min(one.values()) for one in hops if name in one], 50) for name in names}
    order = sorted(names, key=at.__getitem__)
    for index, name in enumerate(order):
        before = order[index - 1] if index else None
        took = [one[name] - one[before] for one in hops if before is not None and name in one and before in one]
        cell = " / ".join(f"{percentile(took, percent) * 1000:.2f}" for percent in (50, 90, 99)) if took else ""
        lines.append(f"| {name} | {at[name] * 1000:.2f} | {cell} |")
    return "\n".join(lines)


def report(result: Mapping[str, Any], load: str) -> list[str]:
    """The paragraphs of the benchmark's report. load: what the burst was."""
    requests, responses = result["requests"], result["responses"]
    if not requests:
        return [f"Waterfall: no spans of the {result['sent']} requests came."]
    return [
        f"A request of a {load}, by hop ({len(requests)} of {result['sent']} were traced):",
        hop_table(requests),
        f"A later response, by hop ({len(responses)} of those requests):",
        hop_table(responses),
    ]


def _step(name: str, span: Span, spans: Sequence[Span]) -> Hops:
    """When a step's request was made, and when its model began and ended computing."""
    hops = {f"{name}: queued": span.start}
    for compute in spans:
        if compute.name == "compute" and compute.parent == span.span_id:
            hops |= _events(compute, {"COMPUTE_START": f"{name}: begun", "COMPUTE_OUTPUT_START": f"{name}: ended"})
    return hops


def _events(span: Span, names: Mapping[str, str]) -> Hops:
    """The first event of each name, as hops."""
    found: Hops = {}
    for name, at in span.events:
        if name in names:
            found.setdefault(names[name], at)
    return found


def _settle(collected: Collector) -> None:
    """Wait until no more spans come."""
    end, seen, since = time.monotonic() + _PATIENCE_S, -1, time.monotonic()
    while time.monotonic() < end:
        if len(collected.spans) != seen:
            seen, since = len(collected.spans), time.monotonic()
        elif time.monotonic() - since > _QUIET_S and seen:
            return
        time.sleep(0.1)
