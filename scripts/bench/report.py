# SPDX-License-Identifier: Apache-2.0
"""Figures of a round: throughput, TTFT, TPOT and ITL with their percentiles, as numbers and as a table."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from scripts.bench.load import Sample

PERCENTILES = (50, 90, 99)


def figures(samples: Sequence[Sample]) -> dict[str, float]:
    """Output tokens per second over the round's wall-clock; times in milliseconds."""
    start, end = min(s.sent for s in samples), max(s.chunks[-1] for s in samples)
    tokens = sum(s.tokens for s in samples)
    times = {
        "ttft_ms": [s.chunks[0] - s.sent for s in samples],
        "tpot_ms": [(s.chunks[-1] - s.chunks[0]) / (s.tokens - 1) for s in samples if s.tokens > 1],
        "itl_ms": [later - earlier for s in samples for earlier, later in pairwise(s.chunks)],
    }
    result = {
        "tokens_per_s": tokens / (end - start),
        "tokens_per_chunk": tokens / sum(len(s.chunks) for s in samples),
    }
    for name, values in times.items():
        for percent in PERCENTILES:
            result[f"{name}_p{percent}"] = percentile(values, percent) * 1000
    return result


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that `percent` of them do not exceed; NaN for none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else float("nan")


COLUMNS = ("tokens_per_s", "tokens_per_chunk", "ttft_ms_p50", "ttft_ms_p99", "tpot_ms_p50", "itl_ms_p50", "itl_ms_p99")


def table(rounds: dict[int, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: per concurrency and contender the median over rounds, then the first contender over the second."""
    lines = ["| streams | contender | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 2)]
    for streams, contenders in rounds.items():
        medians = {
            name: {column: median(each[column] for each in results) for column in COLUMNS}
            for name, results in contenders.items()
        }
        for name, values in medians.items():
            lines.append(f"| {streams} | {name} | " + " | ".join(f"{values[c]:.2f}" for c in COLUMNS) + " |")
        if len(medians) == 2:
            ours, theirs = medians.values()
            ratios = [ours[c] / theirs[c] if theirs[c] else float("nan") for c in COLUMNS]
            lines.append(f"| {streams} | **ratio** | " + " | ".join(f"**{ratio:.2f}**" for ratio in ratios) + " |")
    return "\n".join(lines)
