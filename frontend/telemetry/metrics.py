# SPDX-License-Identifier: Apache-2.0
"""The metrics of requests, which exposition.py writes for Prometheus."""

import asyncio
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Sequence
from functools import cache

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from common.errors import RequestError
from frontend.errors import REFUSALS, ApiError, ClientGone, ShuttingDown, SlowReader
from frontend.settings import SETTING_KEY
from frontend.telemetry.metric_files import keep_metrics_from_failing
from frontend.telemetry.request_record import RequestRecord, current
from frontend.triton.tensors import Delta
from frontend.triton.usage import Usage

ENDPOINTS = ("chat", "completions", "responses", "messages", "tokenize", "detokenize", "embeddings", "rerank", "score")
# Why an answer ended early: values of the label `cause`.
CAUSES = ("client_gone", "timeout", "slow_reader", "shutdown")
# How many gaps between chunks of a request are counted together, and the seconds for which they wait at most.
GAPS, GAPS_PERIOD = 64, 1.0
SETTING_KEYS = f"{SETTING_KEY}*"  # the name in metrics of all API keys of the settings
SCHEMES = ("data", "http", "https", "file", "other")
FETCH_OUTCOMES = ("ok", "refused", "cancelled")

# The bounds of vLLM's histograms of tokens: 1, 2, 5, 10 and so on.
TOKEN_BUCKETS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))

keep_metrics_from_failing()
# Else every counter and histogram of a single process has a series with the time of its creation, which nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client has no types here

REQUESTS = Counter("triton_chat_requests", "Requests by outcome", ["endpoint", "outcome", "model"])
REJECTED = Counter("triton_chat_rejected", "Requests refused by the frontend itself", ["cause", "model"])
CANCELLED = Counter("triton_chat_cancellations", "Answers that were cut off", ["cause", "model"])
IN_FLIGHT = Gauge("triton_chat_in_flight", "Admitted and queued requests", ["model"], multiprocess_mode="livesum")
QUEUED = Gauge("triton_chat_queued", "Queued requests", ["model"], multiprocess_mode="livesum")
TTFT = Histogram(
    "triton_chat_time_to_first_token_seconds",
    "From a request's arrival to the first content",
    ["endpoint", "model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30, 60),
)
ITL = Histogram(
    "triton_chat_inter_token_seconds",
    "Between two chunks of an answer; a chunk has one token unless the client or this process is slow",
    ["endpoint", "model"],
    buckets=(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5),
)
E2E = Histogram(
    "triton_chat_request_seconds",
    "From a request's arrival to the end of its answer",
    ["endpoint", "model"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)
QUEUE_TIME = Histogram(
    "triton_chat_request_queue_time_seconds",
    "Time that a request waited in the frontend for one of its model's slots",
    ["model"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120),
)
REQUEST_PROMPT_TOKENS = Histogram(
    "triton_chat_request_prompt_tokens", "Prompt tokens of a request", ["model"], buckets=TOKEN_BUCKETS
)
REQUEST_GENERATION_TOKENS = Histogram(
    "triton_chat_request_generation_tokens",
    "Output tokens of a request, all its choices together",
    ["model"],
    buckets=TOKEN_BUCKETS,
)
PROMPT_TOKENS = Counter("triton_chat_prompt_tokens", "Prompt tokens", ["endpoint", "model"])
COMPLETION_TOKENS = Counter("triton_chat_completion_tokens", "Output tokens", ["endpoint", "model"])
CACHED_TOKENS = Counter(
    "triton_chat_cached_tokens", "Prompt tokens served from the prefix cache", ["endpoint", "model"]
)
KEY_PROMPT_TOKENS = Counter("triton_chat_key_prompt_tokens", "Prompt tokens by API key and model", ["key", "model"])
KEY_COMPLETION_TOKENS = Counter(
    "triton_chat_key_completion_tokens", "Output tokens by API key and model", ["key", "model"]
)
STORED_RESPONSES = Counter("triton_chat_stored_responses", "Responses written to the response store", ["outcome"])
IMAGE_FETCHES = Counter("triton_chat_image_fetches", "Fetched images and videos by outcome", ["scheme", "outcome"])
IMAGE_BYTES = Counter("triton_chat_image_bytes", "Encoded bytes of fetched images and videos", ["scheme"])
IMAGE_SECONDS = Histogram(
    "triton_chat_image_fetch_seconds",
    "Time to fetch an image or a video",
    ["scheme"],
    buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)


class EndpointMetrics:
    """The metrics of one endpoint and model. The labels are bound once: looking them up costs more than counting."""

    def __init__(self, endpoint: str, model: str) -> None:
        self.ttft = TTFT.labels(endpoint, model)
        self.itl = ITL.labels(endpoint, model)
        self.e2e = E2E.labels(endpoint, model)
        self.queue_time = QUEUE_TIME.labels(model)
        self.request_prompt_tokens = REQUEST_PROMPT_TOKENS.labels(model)
        self.request_generation_tokens = REQUEST_GENERATION_TOKENS.labels(model)
        self.prompt_tokens = PROMPT_TOKENS.labels(endpoint, model)
        self.completion_tokens = COMPLETION_TOKENS.labels(endpoint, model)
        self.cached_tokens = CACHED_TOKENS.labels(endpoint, model)


endpoint_metrics = cache(EndpointMetrics)


def begin_at_zero(model: str) -> None:
    """Create a model's series with the value 0: the rate of one that starts with its first event misses that event.

    model: the label; "" for requests whose model is not known, or not served.
    """
    for endpoint in ENDPOINTS if model else ():
        endpoint_metrics(endpoint, model)
        REQUESTS.labels(endpoint, "ok", model)
    for cause in CAUSES if model else ():
        CANCELLED.labels(cause, model)
    for shape in REFUSALS.values():
        REJECTED.labels(shape.code, model)
    IN_FLIGHT.labels(model)
    QUEUED.labels(model)


def _begin_stored_at_zero() -> None:
    for outcome in ("ok", "failed"):
        STORED_RESPONSES.labels(outcome)


def _begin_images_at_zero() -> None:
    for scheme in SCHEMES:
        IMAGE_BYTES.labels(scheme)
        IMAGE_SECONDS.labels(scheme)
        for outcome in FETCH_OUTCOMES:
            IMAGE_FETCHES.labels(scheme, outcome)


begin_at_zero("")
_begin_stored_at_zero()
_begin_images_at_zero()


class RequestMetrics:
    """Measures one admitted request: a context that is left when its answer has ended.

    usage: the counts to report at the end; None until the request has been read. queued: seconds in the model's queue.
    """

    def __init__(self, endpoint: str) -> None:
        self.usage: Usage | None = None
        self.queued = 0.0
        self._record = current()
        self._record.endpoint = self._endpoint = endpoint
        self._last: dict[int, float] = {}
        self._gaps: list[float] = []
        self._gaps_since = 0.0
        self._in_flight = IN_FLIGHT.labels(self._record.label)
        self._in_flight.inc()
        self._bind()

    def name_model(self, label: str) -> None:
        """Note which model the request is for."""
        if label != self._label:
            self._record.label = label
            self._in_flight.dec()
            self._in_flight = IN_FLIGHT.labels(label)
            self._in_flight.inc()
            self._bind()

    def _bind(self) -> None:
        self._label = self._record.label
        self._metrics = endpoint_metrics(self._endpoint, self._label)

    def leave_queue(self, seconds: float) -> None:
        """Note how long the request was in its model's queue."""
        self.queued = seconds
        self._metrics.queue_time.observe(seconds)

    def fail(self, error: BaseException) -> None:
        """Note why the request failed; the first error counts."""
        self._record.fail(error)

    def observe(self, choice: int, delta: Delta) -> None:
        """Time one delta that is sent to the client."""
        if delta.text or delta.reasoning or delta.tool_calls:
            self.observe_content(choice)

    def observe_content(self, choice: int) -> None:
        """Time a delta with content. Called for every token."""
        now = time.perf_counter()
        last = self._last.get(choice)
        if last is not None:
            self._gaps.append(now - last)
            if len(self._gaps) >= GAPS or now - self._gaps_since > GAPS_PERIOD:
                self._count_gaps(now)
        elif not self._last:
            self._first_content(now)
            self._gaps_since = now
        self._last[choice] = now

    def _count_gaps(self, now: float) -> None:
        if self._gaps:
            observe_all(self._metrics.itl, self._gaps)
            self._gaps.clear()
        self._gaps_since = now

    def timings(self) -> dict[str, float | None]:
        """Return the times of the answer so far in milliseconds, with vLLM's names; None for what has not happened."""
        record, last = self._record, self._last.get(0)
        tokens = 0 if self.usage is None else self.usage.completion_tokens
        total = record.seconds
        decoding = None if record.ttft is None or last is None else last - record.started - record.ttft
        return {
            "queue_time_ms": _milliseconds(self.queued),
            "time_to_first_token_ms": _milliseconds(record.ttft),
            "generation_time_ms": _milliseconds(decoding),
            "mean_itl_ms": _milliseconds(decoding / (tokens - 1)) if decoding is not None and tokens > 1 else None,
            "tokens_per_second": round(tokens / (total - self.queued), 3),
            "total_time_ms": _milliseconds(total),
        }

    def __enter__(self) -> "RequestMetrics":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self.fail(error)
        self._in_flight.dec()
        self._count_gaps(0.0)
        if self.usage is None:
            return
        record, usage = self._record, self.usage
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        record.cached_tokens = usage.cached_tokens
        self._metrics.request_prompt_tokens.observe(record.prompt_tokens)
        self._metrics.request_generation_tokens.observe(record.completion_tokens)
        self._metrics.prompt_tokens.inc(record.prompt_tokens)
        self._metrics.completion_tokens.inc(record.completion_tokens)
        self._metrics.cached_tokens.inc(record.cached_tokens or 0)
        if record.key is not None:
            _count_key(record.key, record.label, usage)

    def _first_content(self, now: float) -> None:
        record = self._record
        record.ttft = now - record.started
        self._metrics.ttft.observe(record.ttft)
        if record.trace is not None:
            record.trace.first_token()


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """Add values to a histogram as if each were observed by itself, which costs as much as to send a token.

    prometheus_client has no public way to do this.
    """
    counts = Counts(bisect_left(histogram._upper_bounds, value) for value in values)
    histogram._sum.inc(sum(values))
    for bucket, count in counts.items():
        histogram._buckets[bucket].inc(count)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _count_key(key: str, model: str, usage: Usage) -> None:
    """Count the tokens of a key, to charge them. Keys of the settings, which have no names, count as one."""
    labels = (SETTING_KEYS if key.startswith(SETTING_KEY) else key, model)
    KEY_PROMPT_TOKENS.labels(*labels).inc(usage.prompt_tokens)
    KEY_COMPLETION_TOKENS.labels(*labels).inc(usage.completion_tokens)


class ImageFetch:
    """Counts, times and traces the fetching of one image. size: its bytes, to be set once it is fetched."""

    def __init__(self, scheme: str) -> None:
        self.size = 0
        self._scheme = scheme if scheme in SCHEMES else "other"
        self._started = time.perf_counter()
        trace = current().trace
        self._span = None if trace is None else trace.begin_image(self._scheme)

    def __enter__(self) -> "ImageFetch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        outcome = "ok" if error is None else "refused" if isinstance(error, RequestError) else "cancelled"
        IMAGE_FETCHES.labels(self._scheme, outcome).inc()
        IMAGE_BYTES.labels(self._scheme).inc(self.size)
        IMAGE_SECONDS.labels(self._scheme).observe(time.perf_counter() - self._started)
        if self._span is not None:
            self._span.end(outcome, self.size)


def count(record: RequestRecord) -> None:
    """Count a request that has ended. Requests that ask no model are counted only if they were refused."""
    if record.endpoint is None and record.error is None:
        return
    REQUESTS.labels(record.endpoint or "other", record.outcome, record.label).inc()
    if isinstance(record.error, ApiError):
        REJECTED.labels(record.outcome, record.label).inc()
    elif record.endpoint is not None:
        endpoint_metrics(record.endpoint, record.label).e2e.observe(record.seconds)
    cause = cancellation(record.error)
    if cause is not None:
        CANCELLED.labels(cause, record.label).inc()


def cancellation(error: BaseException | None) -> str | None:
    """Return which of CAUSES an error is; None if it is not a cancellation."""
    if isinstance(error, ClientGone):
        return "client_gone"
    if isinstance(error, SlowReader):
        return "slow_reader"
    if isinstance(error, RequestError) and error.kind == "timeout":
        return "timeout"
    if isinstance(error, ShuttingDown | asyncio.CancelledError):
        return "shutdown"
    return None
