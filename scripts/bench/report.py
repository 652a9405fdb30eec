# SPDX-License-Identifier: Apache-2.0
"""Save results: `results.json` with every round, `results.md` with tables of medians and ratios, plots.

Loads of each kind have tables of their own. A ratio is the median of the ratios of the rounds: a machine's speed
changes from round to round, less within one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench.arrivals import BURST, CLOSED, STEADY
from scripts.bench.figures import PERCENTILES, TIMES, medians
from scripts.bench.plots import Chart, line_chart
from scripts.bench.target_names import is_peer
from scripts.bench.waterfall import report

# The base of the ratios, if it was measured.
OURS = "triton-chat"
_HEAD = (
    "contender",
    "tokens/s",
    "chunks/s",
    "tokens/chunk",
    "TTFT ms",
    "TPOT ms",
    "ITL ms",
    "CPU s/1k tokens",
    "failed",
)
# Kind of load -> the heading of its tables, and of their first column.
_KINDS: Mapping[str, tuple[str, str]] = {
    CLOSED: ("Streams in a closed loop", "streams"),
    BURST: ("Bursts: all requests at once", "requests"),
    STEADY: ("Steady arrivals", "requests"),
}
# Figures that are compared with the best peer's: the column, and whether more is better.
_COMPARED: Mapping[str, tuple[str, bool]] = {
    "tokens_per_s": ("tokens/s", True),
    "ttft_ms_p50": ("TTFT p50", False),
    "ttft_ms_p99": ("TTFT p99", False),
    "tpot_ms_p50": ("TPOT p50", False),
    "itl_ms_p50": ("ITL p50", False),
    "itl_ms_p99": ("ITL p99", False),
    "cpu_s_per_1k_tokens": ("CPU s/1k tokens", False),
}
_CHARTS: Mapping[str, tuple[str, str]] = {
    "throughput": ("tokens_per_s", "output tokens/s"),
    "ttft-p50": ("ttft_ms_p50", "TTFT p50, ms"),
    "ttft-p99": ("ttft_ms_p99", "TTFT p99, ms"),
    "tpot-p50": ("tpot_ms_p50", "TPOT p50, ms"),
    "itl-p99": ("itl_ms_p99", "ITL p99, ms"),
    "cpu": ("cpu_s_per_1k_tokens", "CPU seconds per 1,000 tokens"),
}

Measurement = Mapping[str, Any]
# Figures by round.
Rounds = dict[int, dict[str, float]]


def save(
    folder: Path,
    about: Mapping[str, Any],
    results: Sequence[Measurement],
    first_pass: Sequence[Measurement] = (),
    waterfall: Mapping[str, Any] | None = None,
) -> str:
    """Write all files; returns the text for the terminal.

    first_pass: measurements before the rounds. waterfall: what `waterfall.measure` returned.
    """
    hops = report(waterfall, f"burst of {about['waterfall']}") if waterfall else []
    text = "\n\n".join([_heading(about), *_first_pass(first_pass), *_sections(results), *hops])
    saved = {"about": about, "results": results}
    saved |= {"first_pass": first_pass} if first_pass else {}
    saved |= {"waterfall": waterfall} if waterfall else {}
    (folder / "results.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
    (folder / "results.md").write_text(text + "\n", encoding="utf-8")
    for name, chart in charts(results).items():
        (folder / f"{name}.svg").write_text(line_chart(chart), encoding="utf-8")
    return f"{text}\n\nsaved in {folder}"


def _first_pass(measured: Sequence[Measurement]) -> list[str]:
    """What the first users of each target met, whose requests are not among the figures."""
    found = [(one, one["figures"]["ttft_ms_p99"]) for one in measured if "ttft_ms_p99" in one["figures"]]
    told = (f"{one['contender']} ({_key(one)[0]}): {first:.0f}" for one, first in found)
    return [f"TTFT p99 of the first pass, which is not among the figures below, ms: {', '.join(told)}"] if found else []


def _sections(results: Sequence[Measurement]) -> list[str]:
    """The tables of each kind of load."""
    parts = []
    for kind, (title, column) in _KINDS.items():
        if measured := [measurement for measurement in results if measurement["arrivals"] == kind]:
            best = best_peer_table(measured, column)
            parts += [f"{title}:", table(measured, column)]
            parts += [f"{OURS} / the best peer of each figure:", best] if best else []
            parts += ["CPU seconds per 1,000 tokens by process:", cpu_table(measured, column)]
    return parts


def table(results: Sequence[Measurement], column: str = "streams") -> str:
    """Markdown table: for each load the medians of each target, then the ratios of the base to the others.

    The base is this stack over HTTP, or the first target if that was not measured. Three figures in a cell are
    p50 / p90 / p99.
    """
    lines = [_row([column, *_HEAD]), "|---:|---|" + "---:|" * (len(_HEAD) - 1)]
    for load, targets in grouped(results).items():
        values = {name: medians(rounds.values()) | _failed(rounds) for name, rounds in targets.items()}
        lines += [_row([load, name, *_cells(found)]) for name, found in values.items()]
        base = OURS if OURS in targets else next(iter(targets))
        for name, rounds in targets.items():
            if name != base:
                lines.append(_row([load, f"**{base} / {name}**", *_cells(_ratios(targets[base], rounds))]))
    return "\n".join(lines)


def best_peer_table(results: Sequence[Measurement], column: str = "streams") -> str:
    """Markdown table: the ratio of this stack to the peer with the best median, for each load and figure.

    Empty if this stack or every peer is missing.
    """
    lines = []
    for load, targets in grouped(results).items():
        peers = {name: medians(rounds.values()) for name, rounds in targets.items() if is_peer(name)}
        if OURS in targets and peers:
            lines.append(_row([load, *(_against_best(figure, targets, peers) for figure in _COMPARED)]))
    head = [_row([column, *(title for title, _ in _COMPARED.values())]), "|---:|" + "---|" * len(_COMPARED)]
    return "\n".join(head + lines) if lines else ""


def _against_best(figure: str, targets: Mapping[str, Rounds], peers: Mapping[str, Mapping[str, float]]) -> str:
    """A cell: the ratio, and the peer."""
    having = {name: values[figure] for name, values in peers.items() if figure in values}
    if not having:
        return ""
    best = (max if _COMPARED[figure][1] else min)(having, key=having.__getitem__)
    ratio = _ratios(targets[OURS], targets[best]).get(figure)
    return f"**{ratio:.2f}** {best}" if ratio is not None else ""


def cpu_table(results: Sequence[Measurement], column: str = "streams") -> str:
    """Markdown table: CPU seconds of each role, a row for each target and load."""
    rows = {
        _key(measurement): medians(each["cpu_s_per_1k_tokens"] for each in results if _key(each) == _key(measurement))
        for measurement in sorted(results, key=_order)
    }
    roles = list(dict.fromkeys(role for values in rows.values() for role in values))
    lines = [_row([column, "contender", *roles]), "|---:|---|" + "---:|" * len(roles)]
    for (load, name), values in rows.items():
        lines.append(_row([load, name, *(f"{values[role]:.3f}" if role in values else "" for role in roles)]))
    return "\n".join(lines)


def grouped(results: Sequence[Measurement]) -> dict[str, dict[str, Rounds]]:
    """Figures by load, target and round, with the CPU seconds of all processes together."""
    found: dict[str, dict[str, Rounds]] = {}
    for measurement in sorted(results, key=_order):
        figures = dict(measurement["figures"])
        if measurement["cpu_s_per_1k_tokens"]:
            figures["cpu_s_per_1k_tokens"] = sum(measurement["cpu_s_per_1k_tokens"].values())
        load, name = _key(measurement)
        found.setdefault(load, {}).setdefault(name, {})[measurement["round"]] = figures
    return found


def charts(results: Sequence[Measurement]) -> dict[str, Chart]:
    """Plots by file name: a figure against the number of streams of a closed loop, a line for each target."""
    measured = grouped([measurement for measurement in results if measurement["arrivals"] == CLOSED])
    points = {
        int(load): {name: medians(rounds.values()) for name, rounds in targets.items()}
        for load, targets in measured.items()
    }
    names = list(dict.fromkeys(name for targets in points.values() for name in targets))
    made = {}
    for file, (figure, label) in _CHARTS.items():
        lines = {
            name: [(count, row[name][figure]) for count, row in points.items() if figure in row.get(name, {})]
            for name in names
        }
        made[file] = Chart(label, "streams", label, {name: line for name, line in lines.items() if line})
    return {file: chart for file, chart in made.items() if chart.lines}


def _failed(rounds: Rounds) -> dict[str, float]:
    """Failures of all rounds; a median would hide them."""
    return {"failed": sum(each["failed"] for each in rounds.values())}


def _ratios(ours: Rounds, theirs: Rounds) -> dict[str, float]:
    """The median ratio of each figure over the rounds that both have."""
    both = [(mine, theirs[number]) for number, mine in ours.items() if number in theirs]
    names = dict.fromkeys(name for mine, _ in both for name in mine if name != "failed")
    found = {
        name: [mine[name] / other[name] for mine, other in both if name in mine and other.get(name)] for name in names
    }
    return {name: median(ratios) for name, ratios in found.items() if ratios}


def _cells(values: Mapping[str, float]) -> list[str]:
    def number(name: str, digits: int) -> str:
        return f"{values[name]:.{digits}f}" if name in values else ""

    times = [" / ".join(filter(None, (number(f"{name}_p{each}", 2) for each in PERCENTILES))) for name in TIMES]
    counts = number("failed", 0)
    rates = [number(name, 2) for name in ("tokens_per_s", "chunks_per_s", "tokens_per_chunk")]
    return [*rates, *times, number("cpu_s_per_1k_tokens", 3), counts]


def _key(measurement: Measurement) -> tuple[str, str]:
    """The load in words, and the target."""
    rate = measurement.get("request_rate")
    at = f" at {rate:g}/s" if rate is not None else ""
    return f"{measurement['streams']}{at}", measurement["contender"]


def _order(measurement: Measurement) -> tuple[float, int]:
    return measurement.get("request_rate", 0.0), measurement["streams"]


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
