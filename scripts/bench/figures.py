# SPDX-License-Identifier: Apache-2.0
"""Figures of one run: throughput, TTFT, TPOT and ITL with their percentiles."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median

from scripts.bench.questions import Answer, Failure, Sample

PERCENTILES = (50, 90, 99)
TIMES = ("ttft_ms", "tpot_ms", "itl_ms")


def figures(answers: Sequence[Answer]) -> dict[str, float]:
    """Compute the figures of one run: counts, throughput, and percentiles of times in milliseconds.

    Throughput: output tokens of all answers over the time from the first request sent to the last answer ended.
    TTFT: from the request to the first chunk with content. TPOT: (latency - TTFT) / (output tokens - 1). ITL: the gap
    between two content chunks. Failed requests are only counted.
    """
    samples = [answer for answer in answers if isinstance(answer, Sample)]
    counts: dict[str, float] = {"requests": len(answers), "failed": len(answers) - len(samples)}
    if not samples:
        return counts
    seconds = max(s.ended for s in samples) - min(s.sent for s in samples)
    tokens, chunks = sum(s.output_tokens for s in samples), sum(len(s.chunks) for s in samples)
    times = {
        "ttft_ms": [s.chunks[0] - s.sent for s in samples],
        "tpot_ms": [(s.ended - s.chunks[0]) / (s.output_tokens - 1) for s in samples if s.output_tokens > 1],
        "itl_ms": [later - earlier for s in samples for earlier, later in pairwise(s.chunks)],
    }
    return (
        counts
        | {
            "seconds": seconds,
            "prompt_tokens": sum(s.prompt_tokens for s in samples),
            "output_tokens": tokens,
            "tokens_per_s": tokens / seconds,
            "requests_per_s": len(samples) / seconds,
            "chunks_per_s": chunks / seconds,
            "tokens_per_chunk": tokens / chunks,
        }
        | {
            f"{name}_p{percent}": percentile(values, percent) * 1000
            for name, values in times.items()
            if values
            for percent in PERCENTILES
        }
    )


def failures(answers: Sequence[Answer]) -> dict[str, int]:
    """Count the failed requests by reason."""
    reasons = [answer.reason for answer in answers if isinstance(answer, Failure)]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile; NaN if there are no values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else float("nan")


def medians(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds that have it."""
    listed = list(rounds)
    names = dict.fromkeys(name for each in listed for name in each)
    return {name: median(each[name] for each in listed if name in each) for name in names}
