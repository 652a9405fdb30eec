# SPDX-License-Identifier: Apache-2.0
"""Save results: `results.json` with every round, `results.md` with tables of medians and ratios, plots."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.bench.figures import PERCENTILES, TIMES, medians
from scripts.bench.plots import Chart, line_chart

# The base of the ratios, if it was measured.
OURS = "triton-chat"
_HEAD = (
    "streams",
    "contender",
    "tokens/s",
    "tokens/chunk",
    "TTFT ms",
    "TPOT ms",
    "ITL ms",
    "CPU s/1k tokens",
    "failed",
)
_CHARTS: Mapping[str, tuple[str, str]] = {
    "throughput": ("tokens_per_s", "output tokens/s"),
    "ttft-p50": ("ttft_ms_p50", "TTFT p50, ms"),
    "ttft-p99": ("ttft_ms_p99", "TTFT p99, ms"),
    "tpot-p50": ("tpot_ms_p50", "TPOT p50, ms"),
    "itl-p99": ("itl_ms_p99", "ITL p99, ms"),
    "cpu": ("cpu_s_per_1k_tokens", "CPU seconds per 1,000 tokens"),
}

Measurement = Mapping[str, Any]


def save(folder: Path, about: Mapping[str, Any], results: Sequence[Measurement]) -> str:
    """Write all files; returns the text for the terminal."""
    text = "\n\n".join(
        [_heading(about), table(results), "CPU seconds per 1,000 tokens by process:", cpu_table(results)]
    )
    (folder / "results.json").write_text(json.dumps({"about": about, "results": results}, indent=1), encoding="utf-8")
    (folder / "results.md").write_text(text + "\n", encoding="utf-8")
    for name, chart in charts(results).items():
        (folder / f"{name}.svg").write_text(line_chart(chart), encoding="utf-8")
    return f"{text}\n\nsaved in {folder}"


def table(results: Sequence[Measurement]) -> str:
    """Markdown table: for each concurrency the medians of each target, then the ratios of the base to the others.

    The base is this stack over HTTP, or the first target if that was not measured. Three figures in a cell are
    p50 / p90 / p99.
    """
    lines = [_row(_HEAD), "|---:|---|" + "---:|" * (len(_HEAD) - 2)]
    for count, targets in grouped(results).items():
        lines += [_row([str(count), name, *_cells(values)]) for name, values in targets.items()]
        base = OURS if OURS in targets else next(iter(targets))
        for name, values in targets.items():
            if name != base:
                ratios = _ratios(targets[base], values)
                lines.append(_row([str(count), f"**{base} / {name}**", *_cells(ratios)]))
    return "\n".join(lines)


def cpu_table(results: Sequence[Measurement]) -> str:
    """Markdown table: CPU seconds of each role, a row for each target and concurrency."""
    rows = {
        (measurement["streams"], measurement["contender"]): medians(
            each["cpu_s_per_1k_tokens"] for each in results if _key(each) == _key(measurement)
        )
        for measurement in sorted(results, key=lambda measurement: measurement["streams"])
    }
    roles = list(dict.fromkeys(role for values in rows.values() for role in values))
    lines = [_row(["streams", "contender", *roles]), "|---:|---|" + "---:|" * len(roles)]
    for (count, name), values in rows.items():
        lines.append(_row([str(count), name, *(f"{values[role]:.3f}" if role in values else "" for role in roles)]))
    return "\n".join(lines)


def grouped(results: Sequence[Measurement]) -> dict[int, dict[str, dict[str, float]]]:
    """Medians over rounds by streams and target, with the CPU seconds of all processes together."""
    found: dict[int, dict[str, list[dict[str, float]]]] = {}
    for measurement in results:
        figures = dict(measurement["figures"])
        if measurement["cpu_s_per_1k_tokens"]:
            figures["cpu_s_per_1k_tokens"] = sum(measurement["cpu_s_per_1k_tokens"].values())
        found.setdefault(measurement["streams"], {}).setdefault(measurement["contender"], []).append(figures)
    return {
        count: {name: medians(rounds) | _failed(rounds) for name, rounds in found[count].items()}
        for count in sorted(found)
    }


def charts(results: Sequence[Measurement]) -> dict[str, Chart]:
    """Plots by file name: a figure against the number of streams, a line for each target."""
    points = grouped(results)
    names = list(dict.fromkeys(name for targets in points.values() for name in targets))
    made = {}
    for file, (figure, label) in _CHARTS.items():
        lines = {
            name: [(count, row[name][figure]) for count, row in points.items() if figure in row.get(name, {})]
            for name in names
        }
        made[file] = Chart(label, "streams", label, {name: line for name, line in lines.items() if line})
    return {file: chart for file, chart in made.items() if chart.lines}


def _failed(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Failures of all rounds; a median would hide them."""
    return {"failed": sum(each["failed"] for each in rounds)}


def _ratios(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {name: ours[name] / theirs[name] for name in ours if name != "failed" and theirs.get(name)}


def _cells(values: Mapping[str, float]) -> list[str]:
    def number(name: str, digits: int) -> str:
        return f"{values[name]:.{digits}f}" if name in values else ""

    times = [" / ".join(filter(None, (number(f"{name}_p{each}", 2) for each in PERCENTILES))) for name in TIMES]
    counts = number("failed", 0)
    return [number("tokens_per_s", 2), number("tokens_per_chunk", 2), *times, number("cpu_s_per_1k_tokens", 3), counts]


def _key(measurement: Measurement) -> tuple[int, str]:
    return measurement["streams"], measurement["contender"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _lengths(workload: Mapping[str, Any]) -> str:
    asked = ", ".join(f"{prompt or 'a question'} in {output} out" for prompt, output in workload["lengths"])
    more = f", {workload['turns']} turns" if workload["turns"] > 1 else ""
    pictures = f", {workload['pictures']} picture" if workload["pictures"] else ""
    return f"tokens {asked}{more}{pictures}"


def _heading(about: Mapping[str, Any]) -> str:
    machine, versions = about["machine"], about["versions"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    engine = f"scripted at {about['scripted_rate']:g} tokens/s a stream" if about["scripted_rate"] else about["model"]
    lines = [
        f"{engine}; {about['workload']['name']}: {_lengths(about['workload'])}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"`{about['command']}`",
    ]
    return "\n\n".join(lines)
