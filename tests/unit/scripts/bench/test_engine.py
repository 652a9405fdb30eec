# SPDX-License-Identifier: Apache-2.0
"""The engines of the benchmark: the loop around vLLM's, on a fake of it, and the one that writes at a chosen rate."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.bench import targets as contenders
from scripts.bench.offline_engine import closed_loop
from scripts.bench.questions import Failure, Question, Sample
from scripts.bench.scripted import ENGINE, scripted_repository
from scripts.bench.targets import CONTENDERS, groups, vllm_flags

ENGINE_FILES = Path(__file__).parents[4] / "model_repository" / "tensorrt_llm" / "1"


def question(tokens: int, prompt: int = 3) -> Question:
    return Question(({"role": "user", "content": "go"},), tuple(range(prompt)), tokens)


class FakeEngine:
    """Stands for vLLM's `LLMEngine`: a token for each running request at each step, none at its first."""

    def __init__(self, most: int = 10**9) -> None:
        self.added: list[list[int]] = []
        self.at_once = 0
        self._left: dict[str, int] = {}
        self._most = most

    def add_request(self, request_id: str, prompt: dict[str, Any], tokens: int) -> None:
        assert request_id not in self._left
        self.added.append(prompt["prompt_token_ids"])
        self._left[request_id] = min(tokens, self._most) + 1

    def step(self) -> list[Any]:
        self.at_once = max(self.at_once, len(self._left))
        outputs = []
        for name in list(self._left):
            self._left[name] -= 1
            fresh = name not in getattr(self, "_seen", set())
            self._seen = {*getattr(self, "_seen", set()), name}
            ids = [] if fresh else [7]
            finished = self._left[name] == 0
            outputs.append(
                SimpleNamespace(request_id=name, outputs=[SimpleNamespace(token_ids=ids)], finished=finished)
            )
            if finished:
                del self._left[name]
        return outputs


def test_the_engines_loop_is_closed() -> None:
    engine = FakeEngine()
    streams = [[question(5), question(2)], [question(1, prompt=6), question(9)], []]
    answers = closed_loop(engine, streams, lambda question: question.output_tokens)
    assert sorted(len(ids) for ids in engine.added) == [3, 3, 3, 6]
    assert engine.at_once == 2
    assert all(isinstance(answer, Sample) for answer in answers)
    assert sorted(answer.output_tokens for answer in answers if isinstance(answer, Sample)) == [1, 2, 5, 9]
    for answer in answers:
        assert isinstance(answer, Sample)
        assert len(answer.chunks) == answer.output_tokens
        assert answer.sent <= answer.chunks[0] <= answer.chunks[-1] == answer.ended


def test_an_engine_that_ends_early_fails_the_request() -> None:
    answers = closed_loop(FakeEngine(most=2), [[question(3)], [question(2)]], lambda question: question.output_tokens)
    assert [answer for answer in answers if isinstance(answer, Failure)] == [Failure("2 tokens were written, not 3")]
    assert len(answers) == 2


def test_engine_options_as_flags() -> None:
    options = {"dtype": "bfloat16", "enforce_eager": True, "enable_prefix_caching": False, "max_model_len": 4096}
    more = {"limit_mm_per_prompt": {"image": 1}, "cudagraph_capture_sizes": [1, 2]}
    assert vllm_flags(options | more) == [
        *("--dtype", "bfloat16", "--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "4096"),
        *("--limit-mm-per-prompt", '{"image": 1}', "--cudagraph-capture-sizes", "1", "2"),
    ]


def test_vllm_serve_of_either_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise contenders.PackageNotFoundError(name)

    monkeypatch.setattr(contenders, "version", lambda name: "0.25.0")
    assert contenders.vllm_serve("/m")[1:] == ["-m", "vllm.entrypoints.cli.main", "serve", "/m"]
    monkeypatch.setattr(contenders, "version", missing)
    assert contenders.vllm_serve("/m")[1:] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "/m"]


def test_taps_share_a_start() -> None:
    assert groups(["vllm-serve", "triton-chat", "engine", "tensorrt_llm"]) == [
        ("vllm-serve",),
        ("triton-chat", "tensorrt_llm"),
        ("engine",),
    ]
    assert groups(CONTENDERS) == [("triton-chat", "ensemble", "tensorrt_llm"), ("engine",), ("vllm-serve",)]


@pytest.fixture
def scripted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scripted repository's `tensorrt_llm/1`, on the path as in Triton's stub."""
    repository = scripted_repository(tmp_path)
    monkeypatch.syspath_prepend(str(repository / "tensorrt_llm" / "1"))
    yield repository / "tensorrt_llm" / "1"


def test_the_scripted_repository_is_whole(scripted_folder: Path) -> None:
    module = ENGINE.partition(":")[0]
    assert {path.name for path in scripted_folder.glob("*.py")} == {
        *(path.name for path in ENGINE_FILES.glob("*.py")),
        f"{module}.py",
    }
    assert (scripted_folder.parents[1] / "ensemble" / "config.pbtxt").is_file()


async def generate(engine: Any, tokens: int) -> list[tuple[float, int, Any]]:
    from engines.engine import Generation

    made = []
    async for piece in engine.generate(Generation([1, 2, 3], tokens)):
        made.append((time.monotonic(), len(piece.ids), piece.finish))
    return made


async def test_the_scripted_engine_writes_what_is_asked(scripted_folder: Path, qwen3_tokenizer_dir: Path) -> None:
    from token_rate_engine import TokenRateEngine

    from common.finish_reason import FinishReason
    from engines.engine import STATISTICS
    from engines.options import EngineOptions

    engine = TokenRateEngine(EngineOptions(ENGINE, str(qwen3_tokenizer_dir), {"token_rate": 50, "max_num_seqs": 2}))
    await engine.start()
    begun = time.monotonic()
    answers = [asyncio.create_task(generate(engine, tokens)) for tokens in (20, 20, 10)]
    await asyncio.sleep(0.1)
    assert engine.statistics().keys() == STATISTICS.keys()
    assert (engine.statistics()["running"], engine.statistics()["waiting"]) == (2, 1)
    first, second, third = await asyncio.gather(*answers)
    for pieces, tokens in ((first, 20), (second, 20), (third, 10)):
        assert sum(count for _, count, _ in pieces) == tokens
        assert [finish for _, _, finish in pieces] == [None] * (len(pieces) - 1) + [FinishReason.LENGTH]
    # A machine may be late, but the engine is never early: 20 steps of 20 ms less the one under way at the start.
    assert first[-1][0] - begun > 0.36
    # The third waited for a slot.
    assert third[0][0] > min(first[-1][0], second[-1][0])
    assert engine.statistics()["running"] == engine.statistics()["waiting"] == 0
    engine.shutdown()
    with contextlib.suppress(asyncio.CancelledError):
        await engine._steps


async def test_who_is_late_gets_several_tokens_at_once(scripted_folder: Path, qwen3_tokenizer_dir: Path) -> None:
    from token_rate_engine import TokenRateEngine

    from engines.engine import Generation
    from engines.options import EngineOptions

    engine = TokenRateEngine(EngineOptions(ENGINE, str(qwen3_tokenizer_dir), {"token_rate": 200}))
    await engine.start()
    pieces = engine.generate(Generation([1], 100))
    await anext(pieces)
    await asyncio.sleep(0.2)
    assert len((await anext(pieces)).ids) >= 30
    await pieces.aclose()
    assert engine.statistics()["running"] == 0
    engine.shutdown()
