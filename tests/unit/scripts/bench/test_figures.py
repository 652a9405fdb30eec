# SPDX-License-Identifier: Apache-2.0
"""The benchmark's arithmetic, its tables and its plots."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scripts.bench import growth
from scripts.bench.figures import failures, figures, medians, percentile
from scripts.bench.plots import Chart, line_chart, ticks
from scripts.bench.questions import Failure, Question, Sample, check_result
from scripts.bench.report import best_peer_table, charts, cpu_table, grouped, save, table

# Sent at 10 s, chunks of three tokens at 10.5, 11 and 12, the end at 12.5 with a token that has no text.
FIRST = Sample(10.0, (10.5, 11.0, 12.0), 12.5, 7, 10)
SECOND = Sample(11.0, (13.0,), 14.0, 5, 2)


def test_figures_by_hand() -> None:
    found = figures([FIRST, Failure("HTTP 503"), SECOND])
    assert (found["requests"], found["failed"]) == (3, 1)
    assert found["seconds"] == 4.0
    assert found["output_tokens"] == 12
    assert found["prompt_tokens"] == 12
    assert found["tokens_per_s"] == 3.0
    assert found["requests_per_s"] == 0.5
    assert found["tokens_per_chunk"] == 3.0
    assert found["chunks_per_s"] == 1.0
    assert [found[f"ttft_ms_p{percent}"] for percent in (50, 90, 99)] == [500, 2000, 2000]
    assert found["tpot_ms_p50"] == pytest.approx(1000 * 2.0 / 9)
    assert found["tpot_ms_p99"] == 1000.0
    assert [found["itl_ms_p50"], found["itl_ms_p99"]] == [500, 1000]


def test_an_answer_of_one_token_has_no_time_per_token() -> None:
    found = figures([Sample(0.0, (1.0,), 1.0, 3, 1)])
    assert not [name for name in found if name.startswith(("tpot", "itl"))]


def test_if_all_failed_only_that_is_reported() -> None:
    answers = [Failure("gone"), Failure("late"), Failure("gone")]
    assert figures(answers) == {"requests": 3, "failed": 3}
    assert failures([*answers, FIRST]) == {"gone": 2, "late": 1}


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (90, 90), (99, 99), (100, 100)])
def test_percentiles_are_nearest_ranks(percent: int, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_medians_over_rounds_that_have_a_figure() -> None:
    assert medians([{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample(0, (1,), 1, 4, 3), None),
        (Sample(0, (1,), 1, 4, 2), "2 tokens were written, not 3"),
        (Sample(0, (1,), 1, 5, 3), "the prompt had 5 tokens there, not 4"),
        (Sample(0, (), 1, 4, 3), "no chunk had content"),
    ],
)
def test_an_answer_must_be_what_was_asked_for(sample: Sample, reason: str | None) -> None:
    judgement = check_result(Question(({"role": "user", "content": "x"},), (1, 2, 3, 4), 3), sample)
    assert judgement == (sample if reason is None else Failure(reason))


def measurement(
    name: str, streams: int, speed: float, *, number: int = 1, failed: int = 0, kind: str = "closed loop", **cpu: float
) -> dict[str, Any]:
    counts = {"requests": 4, "failed": failed, "tokens_per_s": speed, "chunks_per_s": speed, "tokens_per_chunk": 1.0}
    times = {f"{kind}_ms_p{percent}": 1000 / speed for kind in ("ttft", "tpot", "itl") for percent in (50, 90, 99)}
    return {
        "contender": name,
        "streams": streams,
        "arrivals": kind,
        "round": number,
        "figures": counts | times,
        "cpu_s_per_1k_tokens": cpu,
        "failures": {"gone": failed} if failed else {},
    }


ROUNDS = [
    measurement("vllm-serve", 8, 10.0, server=1.0),
    measurement("triton-chat", 8, 20.0, frontend=0.25, engine=0.5),
    measurement("triton-chat", 8, 40.0, number=2, failed=1, frontend=0.75, engine=0.5),
    measurement("triton-chat", 8, 30.0, number=3, failed=2, frontend=0.5, engine=0.5),
    measurement("vllm-serve", 8, 10.0, number=2, server=1.0),
    measurement("vllm-serve", 8, 30.0, number=3, server=1.0),
    measurement("vllm-serve", 1, 4.0, server=1.0),
    measurement("triton-chat", 1, 2.0, frontend=0.25, engine=0.5),
]


def test_the_table_has_medians_ratios_and_all_failures() -> None:
    lines = [line.strip("| ").split(" | ") for line in table(ROUNDS).splitlines()[2:]]
    assert [line[:2] for line in lines[:3]] == [
        ["1", "vllm-serve"],
        ["1", "triton-chat"],
        ["1", "**triton-chat / vllm-serve**"],
    ]
    ours, ratio = lines[4], lines[5]
    assert ours[2:4] == ["30.00", "30.00"]
    assert ours[5] == "33.33 / 33.33 / 33.33"
    assert ours[8:] == ["1.000", "3"]
    # The median of 2, 4 and 1: that of the medians would be 3.
    assert ratio[2] == "2.00"
    assert ratio[5] == "0.50 / 0.50 / 0.50"
    assert ratio[8] == "1.000"


def test_without_this_stack_the_first_named_is_the_base() -> None:
    rounds = [measurement("engine", 1, 9.0), measurement("vllm-serve", 1, 3.0)]
    assert "| 1 | **engine / vllm-serve** | 3.00 | 3.00 |" in table(rounds)
    assert not best_peer_table(rounds)


def test_the_best_peer_of_each_figure_is_named() -> None:
    rounds = [
        measurement("triton-chat", 64, 8.0, cpu=0.5),
        measurement("engine", 64, 99.0),
        measurement("vllm-serve", 64, 4.0, cpu=0.2),
        measurement("vllm-serve:4", 64, 16.0, cpu=0.25),
        measurement("vllm-rust", 64, 10.0),
        measurement("triton-chat", 1, 1.0),
    ]
    lines = best_peer_table(rounds).splitlines()
    assert len(lines) == 3
    cells = lines[2].strip("| ").split(" | ")
    assert cells[:3] == ["64", "**0.50** vllm-serve:4", "**2.00** vllm-serve:4"]
    assert cells[-1] == "**2.50** vllm-serve"


def test_bursts_and_steady_arrivals_have_tables_of_their_own(tmp_path: Path) -> None:
    rounds = [
        measurement("triton-chat", 8, 3.0, kind="burst"),
        measurement("triton-chat", 8, 2.0, kind="steady arrivals") | {"request_rate": 2.5, "burstiness": 1.0},
        measurement("triton-chat", 8, 1.0),
    ]
    text = save(tmp_path, ABOUT, rounds)
    titles = ["Streams in a closed loop:", "Bursts: all requests at once:", "Steady arrivals:"]
    assert sorted(titles, key=text.index) == titles
    assert "| 8 at 2.5/s | triton-chat | 2.00 |" in text
    assert "| 8 | triton-chat | 3.00 |" in text
    assert charts(rounds)["throughput"].lines == {"triton-chat": [(8, 1.0)]}


def test_cpu_of_each_process() -> None:
    lines = cpu_table(ROUNDS).splitlines()
    assert lines[0] == "| streams | contender | server | frontend | engine |"
    assert lines[-1] == "| 8 | triton-chat |  | 0.500 | 0.500 |"
    assert grouped(ROUNDS)["8"]["triton-chat"][3]["cpu_s_per_1k_tokens"] == 1.0


ABOUT = {
    "scripted_rate": None,
    "model": "m",
    "workload": {"name": "chat", "lengths": [[1, 2], [0, 5]], "turns": 4, "pictures": 1},
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 4, "gpus": ["a GPU"]},
    "versions": {"python": "3"},
    "command": "triton-chat bench",
}


def test_everything_is_saved(tmp_path: Path) -> None:
    output = save(tmp_path, ABOUT, ROUNDS)
    assert "a CPU, 2 cores, 4 GiB, a GPU" in output
    assert "m; chat: tokens 1 in 2 out, a question in 5 out, 4 turns, 1 picture" in output
    assert json.loads((tmp_path / "results.json").read_text())["results"] == ROUNDS
    assert (tmp_path / "results.md").read_text().strip() in output
    drawn = {path.stem for path in tmp_path.glob("*.svg")}
    assert drawn == {"throughput", "ttft-p50", "ttft-p99", "tpot-p50", "itl-p99", "cpu"}


def test_a_plot_places_points_by_their_values() -> None:
    lines = {"a <b>": [(1.0, 0.0), (8.0, 50.0), (64.0, 100.0)]}
    root = ElementTree.fromstring(line_chart(Chart("title & more", "x", "y", lines)))
    (line,) = (element for element in root.iter() if element.tag.endswith("polyline"))
    (x1, y1), (x2, y2), (x3, y3) = (map(float, point.split(",")) for point in line.attrib["points"].split())
    # By the logarithm, 8 is in the middle of 1 and 64; y grows upwards from 0.
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert y1 > y3
    texts = [element.text for element in root if element.tag.endswith("text")]
    assert {"title & more", "a <b>", "8", "100"} <= set(texts)


@pytest.mark.parametrize("largest", [0.0003, 0.9, 1.0, 7.0, 99.0, 100.0, 12_345.0])
def test_ticks_are_few_and_reach_the_largest(largest: float) -> None:
    found = ticks(largest)
    assert found[0] == 0
    assert found[-2] < largest <= found[-1] * (1 + 1e-9)
    assert 4 <= len(found) <= 8
    assert re.fullmatch(
        r"(1|2|2\.5|5)e[+-]\d+", f"{found[1]:g}" if "e" in f"{found[1]:g}" else f"{found[1]:.1e}".replace(".0", "")
    )


def test_growth_reports_costs_and_memory() -> None:
    def point(x: int, cpu: float) -> dict[str, Any]:
        return measurement("triton-chat", 4, 10.0, stub=cpu) | {"x": x, "output_tokens": x}

    memory = [{"x": 0, "rss_mib": {"stub": 10.0}}, {"x": 640, "rss_mib": {"stub": 12.5, "late": 1.0}}]
    result = {"lengths": [point(100, 0.5), point(1000, 0.25)], "streams": [point(1, 1.0)], "memory": memory}
    text = growth.tables(result)
    assert "| 1000 | 4 | 10.00 | 1.00 | 100.00 | 0.250 |" in text
    assert "| process | MiB before | MiB after 640 requests |" in text
    assert "| stub | 10.0 | 12.5 |" in text
    drawn = growth.charts(result)
    assert drawn["lengths-cpu"].lines == {"stub": [(100, 0.5), (1000, 0.25)]}
    assert drawn["memory"].lines == {"stub": [(0, 10.0), (640, 12.5)], "late": [(640, 1.0)]}
    assert drawn.keys() == {"lengths-cpu", "lengths-time", "streams-cpu", "streams-time", "memory"}
