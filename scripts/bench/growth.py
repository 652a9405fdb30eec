# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench growth`: cost per token as answers and streams grow, and memory over many requests.

The engine is the token-rate engine, so all cost is that of the serving layers. Every load goes through HTTP.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.command_line import Parser
from scripts.bench import machine
from scripts.bench.errors import BenchError
from scripts.bench.measurement import measure_load, mib, print_measurement
from scripts.bench.options import client_processes, parse_with_serve_flags, positive, rate
from scripts.bench.plots import Chart, line_chart
from scripts.bench.processes import snapshot
from scripts.bench.targets import NAME, RunningTarget, Starter, token_rate_flags
from scripts.bench.workloads import Workload, streams
from scripts.launcher import FREE_PORTS, Stack
from scripts.launcher.options import DEFAULT_MODEL

if TYPE_CHECKING:
    # It imports transformers, which the command's help need not wait for.
    from scripts.bench.prompts import PromptMaker

HTTP = "triton-chat"
PROMPT_TOKENS = 64
# Of the runs against the number of streams, and against the number of requests.
OUTPUT_TOKENS, SHORT_TOKENS = 128, 16
LENGTH_STREAMS = 4
MEMORY_STREAMS = 64
# How often memory is sampled during a run.
MEMORY_SAMPLES = 10
_MARGIN = 1024


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; unknown flags become `serve_flags`, for the stack."""
    parser = Parser(
        prog="triton-chat bench growth",
        description="Cost per token against the length of answers and the number of streams, memory over many "
        "requests, and the time to start, around an engine that computes nothing.",
        epilog="Any other flag is one of `triton-chat serve`.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="whose tokenizer and template are used (default: %(default)s)")
    lengths, counts = [100, 1000, 10_000, 32_000], [1, 8, 64, 256, 512]
    add("--lengths", nargs="+", type=positive, default=lengths, help="output tokens (default: 100 to 32000)")
    add("--streams", nargs="+", type=positive, default=counts, help="concurrencies (default: 1 to 512)")
    add("--requests", type=positive, default=2000, help="requests while memory is sampled (default: %(default)s)")
    add("--length-rate", type=rate, default=500.0, help="tokens/s of a stream against lengths (default: %(default)g)")
    add("--rate", type=rate, default=20.0, help="tokens/s of a stream against streams (default: %(default)g)")
    add("--client-processes", type=positive, default=client_processes(), help="default: %(default)s here")
    add("--out", type=Path, default=Path(".cache/bench-growth"), help="default: %(default)s")
    return parse_with_serve_flags(parser, arguments)


def measure(options: argparse.Namespace) -> int:
    """Run all loads and save the results, also after an interruption; returns 1 if requests failed."""
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"start_s": [], "lengths": [], "streams": [], "memory": [], "tritonserver": None}
    try:
        with _running(options, options.length_rate, max(options.lengths), result) as growth:
            for length in sorted(options.lengths):
                result["lengths"].append(growth.cost(length, LENGTH_STREAMS, 1, length))
        with _running(options, options.rate, OUTPUT_TOKENS, result) as growth:
            for count in sorted(options.streams):
                result["streams"].append(growth.cost(OUTPUT_TOKENS, count, 1, count))
            for measurement in growth.sample_memory(options.requests):
                result["memory"].append(measurement)
    finally:
        if result["lengths"]:
            _save(options, result)
    measurements = [*result["lengths"], *result["streams"], *result["memory"]]
    return 1 if any(measurement["failures"] for measurement in measurements) else 0


class Growth:
    """Loads on one running stack."""

    def __init__(self, options: argparse.Namespace, running: RunningTarget, maker: "PromptMaker") -> None:
        self.running = running
        self._options = options
        self._maker = maker
        self._loads = 0

    def cost(self, output_tokens: int, count: int, requests: int, x: int) -> dict[str, Any]:
        """Measure the time per token and the CPU time of each process. x: the point's value on the plot's x axis."""
        measurement = self._load(output_tokens, count, requests) | {"x": x}
        speed = measurement["figures"].get("tokens_per_s", 0)
        print_measurement(f"{output_tokens} tokens, {count} streams: {speed:.0f} tokens/s", measurement)
        return measurement

    def sample_memory(self, requests: int) -> Iterator[dict[str, Any]]:
        """Yield the resident memory of each process before, during and after that many short requests."""
        yield {"x": 0, "rss_mib": mib(snapshot(self.running.roots)), "failures": {}}
        each = math.ceil(requests / MEMORY_SAMPLES / MEMORY_STREAMS)
        done = 0
        while done < requests:
            measurement = self._load(SHORT_TOKENS, MEMORY_STREAMS, each)
            # Each stream also sends one request as warm-up.
            done += MEMORY_STREAMS * (each + 1)
            print_measurement(f"{done} requests: {sum(measurement['rss_mib'].values()):.0f} MiB", measurement)
            yield measurement | {"x": done}

    def _load(self, output_tokens: int, count: int, requests: int) -> dict[str, Any]:
        self._loads += 1
        workload = Workload("", ((PROMPT_TOKENS, output_tokens),))
        # Long answers need no warm-up, which would take as long again.
        warmup = 0 if output_tokens > OUTPUT_TOKENS else 1
        load = streams(workload, self._maker, count, requests, warmup, number=self._loads, salt=0)
        asked = {"output_tokens": output_tokens, "streams": count}
        return asked | measure_load(self.running, HTTP, load, self._options.client_processes)


@contextmanager
def _running(options: argparse.Namespace, token_rate: float, longest: int, result: dict[str, Any]) -> Iterator[Growth]:
    flags = ["--model", options.model, "--served-model-name", NAME, *FREE_PORTS]
    flags += ["--log-dir", str(options.out / "logs"), f"--max-model-len={longest + _MARGIN}"]
    flags += [f"--max-in-flight={max(MEMORY_STREAMS, 512, *options.streams)}", "--request-timeout=3600"]
    flags += [*token_rate_flags(token_rate), *options.serve_flags]
    stack = Stack(flags)
    from scripts.bench.prompts import PromptMaker

    try:
        maker = PromptMaker(stack.model.checkpoint.path, longest + _MARGIN, styler=stack.options.styler)
    except ValueError as error:
        raise BenchError(str(error)) from error
    with Starter(lambda: stack, options.model, (), options.out).start((HTTP,)) as running:
        result["start_s"].append(running.started_s)
        result |= {"tritonserver": running.tritonserver, "commands": running.commands}
        yield Growth(options, running, maker)


def _save(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    about = {
        "command": options.line,
        "model": Path(options.model).name,
        "length_rate": options.length_rate,
        "rate": options.rate,
        "machine": machine.hardware(),
        "versions": machine.versions(result["tritonserver"]),
    }
    (options.out / "growth.json").write_text(json.dumps({"about": about, **result}, indent=1), encoding="utf-8")
    for name, chart in charts(result).items():
        (options.out / f"{name}.svg").write_text(line_chart(chart), encoding="utf-8")
    starts = " and ".join(f"{seconds:.1f} s" for seconds in result["start_s"])
    text = f"{tables(result)}\n\nStarted in {starts}."
    (options.out / "growth.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nsaved in {options.out}")


def charts(result: Mapping[str, Any]) -> dict[str, Chart]:
    """The plots by file name."""
    made = {}
    for kind, label in (("lengths", "output tokens of an answer"), ("streams", "streams")):
        cpu = _by_role(result[kind], "cpu_s_per_1k_tokens")
        made[f"{kind}-cpu"] = Chart("CPU against " + kind, label, "CPU seconds per 1,000 tokens", cpu)
        times = {
            f"p{percent}": [
                (measurement["x"], measurement["figures"][f"tpot_ms_p{percent}"])
                for measurement in result[kind]
                if f"tpot_ms_p{percent}" in measurement["figures"]
            ]
            for percent in (50, 99)
        }
        if times["p50"]:
            made[f"{kind}-time"] = Chart("Time per token against " + kind, label, "TPOT, ms", times)
    sizes = _by_role(result["memory"], "rss_mib")
    made["memory"] = Chart("Resident memory", "requests", "MiB", sizes, log_x=False)
    return {name: chart for name, chart in made.items() if chart.lines}


def tables(result: Mapping[str, Any]) -> str:
    """Markdown tables: cost against length and streams, and memory before and after."""
    lines = ["| output tokens | streams | tokens/s | tokens/chunk | TPOT p50 ms | CPU s/1k tokens |", "|---:" * 6 + "|"]
    for measurement in (*result["lengths"], *result["streams"]):
        found = measurement["figures"]
        names = ("tokens_per_s", "tokens_per_chunk", "tpot_ms_p50")
        cells = [f"{found[name]:.2f}" if name in found else "" for name in names]
        cells += [f"{sum(measurement['cpu_s_per_1k_tokens'].values()):.3f}"]
        lines.append(f"| {measurement['output_tokens']} | {measurement['streams']} | {' | '.join(cells)} |")
    if not result["memory"]:
        return "\n".join(lines)
    first, last = result["memory"][0], result["memory"][-1]
    lines += ["", f"| process | MiB before | MiB after {last['x']} requests |", "|---|---:|---:|"]
    for role, size in last["rss_mib"].items():
        lines.append(f"| {role} | {first['rss_mib'].get(role, 0):.1f} | {size:.1f} |")
    return "\n".join(lines)


def _by_role(measurements: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[tuple[float, float]]]:
    roles = dict.fromkeys(role for each in measurements for role in each[key])
    return {role: [(each["x"], each[key][role]) for each in measurements if role in each[key]] for role in roles}
