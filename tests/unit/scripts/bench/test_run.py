# SPDX-License-Identifier: Apache-2.0
"""The order of starts and measurements, on contenders that only answer, and what an interruption leaves."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import run, side_by_side
from scripts.bench.load import Outcome
from scripts.bench.options import parse
from scripts.bench.questions import Sample, Stream
from scripts.bench.targets import RunningTarget


class FakeStarter:
    """Replaces `Starter`; its contenders answer at once, and it tells what happens in which order."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self.interrupt_at: str | None = None

    @contextmanager
    def start(self, names: Sequence[str]) -> Iterator[RunningTarget]:
        self._log.append(f"start {' '.join(names)}")
        yield RunningTarget({name: self._load(name) for name in names}, {"fake": os.getpid()}, 1.0)
        self._log.append(f"stop {' '.join(names)}")

    @contextmanager
    def start_all(self, order: Sequence[Sequence[str]], *, at_once: bool) -> Iterator[dict[str, RunningTarget]]:
        self._log.append(f"start all {'at once' if at_once else 'in turn'}")
        try:
            yield {
                name: RunningTarget({name: self._load(name)}, {"fake": os.getpid()}, 1.0)
                for names in order
                for name in names
            }
        finally:
            self._log.append("stop all")

    def _load(self, name: str) -> Callable[..., Outcome]:
        def load(streams: Sequence[Stream], processes: int, measuring: Callable[[], None]) -> Outcome:
            measuring()
            self._log.append(f"{name} {len(streams)}x{len(streams[0].measured)} at {streams[-1].after > 0}")
            # Side by side, the first time is the first pass.
            if self._log.count(self.interrupt_at) == 2:
                raise KeyboardInterrupt
            asked = [question for stream in streams for question in stream.measured]
            return Outcome([Sample(0.0, (1.0, 2.0), 2.0, len(one.input_ids), one.output_tokens) for one in asked])

        return load


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def starter(log: list[str], monkeypatch: pytest.MonkeyPatch) -> FakeStarter:
    fake = FakeStarter(log)
    monkeypatch.setattr(side_by_side, "available_memory", lambda: 64 * 2**30)
    monkeypatch.setattr(run, "Starter", lambda *given: fake)
    return fake


def options(folder: Path, *words: str) -> Any:
    lengths = ["--prompt-tokens", "40", "--output-tokens", "4", "--client-processes", "1"]
    return parse([*words, *lengths, "--max-model-len", "512", "--out", str(folder)])


def test_one_after_the_other(log: list[str], starter: FakeStarter, tmp_path: Path) -> None:
    line = ["--contenders", "http", "ensemble", "vllm-serve", "--streams", "1", "2", "--requests-per-stream", "2"]
    assert run.measure(options(tmp_path, *line, "--min-requests", "6")) == 0
    assert log == [
        "start triton-chat ensemble",
        *("triton-chat 1x6 at False", "ensemble 1x6 at False", "triton-chat 2x3 at False", "ensemble 2x3 at False"),
        "stop triton-chat ensemble",
        *("start vllm-serve", "vllm-serve 1x6 at False", "vllm-serve 2x3 at False", "stop vllm-serve"),
        *("start vllm-serve", "vllm-serve 1x6 at False", "vllm-serve 2x3 at False", "stop vllm-serve"),
        "start triton-chat ensemble",
        *("ensemble 1x6 at False", "triton-chat 1x6 at False", "ensemble 2x3 at False", "triton-chat 2x3 at False"),
        "stop triton-chat ensemble",
    ]


def test_side_by_side_asks_all_in_turn(log: list[str], starter: FakeStarter, tmp_path: Path) -> None:
    line = ["--side-by-side", "--contenders", "http", "vllm-serve", "vllm-serve:2", "--request-rate", "inf", "5"]
    assert run.measure(options(tmp_path, *line, "--num-prompts", "3")) == 0
    first = ["triton-chat 3x1 at {}", "vllm-serve 3x1 at {}", "vllm-serve:2 3x1 at {}"]
    # The first pass, then two rounds.
    rounds = [one.format(late) for listed in (first, first, first[::-1]) for late in (False, True) for one in listed]
    assert log == ["start all at once", *rounds, "stop all"]
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["about"]["side_by_side"]
    assert [one["contenders"] for one in saved["about"]["starts"]] == [
        ["triton-chat"],
        ["vllm-serve"],
        ["vllm-serve:2"],
    ]
    assert [(len(saved[name]), {one["round"] for one in saved[name]}) for name in ("first_pass", "results")] == [
        (6, {0}),
        (12, {1, 2}),
    ]
    told = "TTFT p99 of the first pass, which is not among the figures below, ms: triton-chat (3): 1000, vllm-serve (3): 1000"
    assert told in (tmp_path / "results.md").read_text()
    assert "/ the best peer of each figure" in (tmp_path / "results.md").read_text()


def test_an_interruption_keeps_what_was_measured_before_anything_is_stopped(
    log: list[str], starter: FakeStarter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run.save
    monkeypatch.setattr(run, "save", lambda *given: log.append("saved") or kept(*given))
    starter.interrupt_at = "vllm-serve 1x1 at False"
    line = ["--side-by-side", "--contenders", "http", "vllm-serve", "--streams", "1", "--requests-per-stream", "1"]
    with pytest.raises(KeyboardInterrupt):
        run.measure(options(tmp_path, *line))
    assert log[-4:] == ["vllm-serve 1x1 at False", "saved", "stop all", "saved"]
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [one["contender"] for one in saved["first_pass"]] == ["triton-chat", "vllm-serve"]
    assert [one["contender"] for one in saved["results"]] == ["triton-chat"]
