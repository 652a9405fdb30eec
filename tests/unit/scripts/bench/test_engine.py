# SPDX-License-Identifier: Apache-2.0
"""The benchmark's engines: the loop around vLLM's, on a fake of it, and the token-rate engine."""

import asyncio
import contextlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.finish_reason import FinishReason
from engines.engine import STATISTICS, Generation
from engines.options import EngineOptions
from engines.registry import build_engine
from scripts.bench.offline_engine import run_streams
from scripts.bench.questions import Failure, Question, Sample, Stream
from scripts.bench.targets import TOKEN_RATE_ENGINE, groups, token_rate_flags, vllm_flags
from scripts.bench.token_rate_engine import TokenRateEngine
from scripts.launcher.options import parse_options
from tests.support.engine_streams import stream_of


def question(tokens: int, prompt: int = 3) -> Question:
    return Question(({"role": "user", "content": "go"},), tuple(range(prompt)), tokens)


class FakeEngine:
    """Replaces vLLM's `LLMEngine`: one token for each running request at each step, none at its first."""

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
    streams = [Stream((), [question(5), question(2)]), Stream((), [question(1, prompt=6), question(9)]), Stream((), [])]
    answers = run_streams(engine, streams, lambda question: question.output_tokens)
    assert sorted(len(ids) for ids in engine.added) == [3, 3, 3, 6]
    assert engine.at_once == 2
    assert all(isinstance(answer, Sample) for answer in answers)
    assert sorted(answer.output_tokens for answer in answers if isinstance(answer, Sample)) == [1, 2, 5, 9]
    for answer in answers:
        assert isinstance(answer, Sample)
        assert len(answer.chunks) == answer.output_tokens
        assert answer.sent <= answer.chunks[0] <= answer.chunks[-1] == answer.ended


def test_an_engine_that_ends_early_fails_the_request() -> None:
    streams = [Stream((), [question(3)]), Stream((), [question(2)])]
    answers = run_streams(FakeEngine(most=2), streams, lambda question: question.output_tokens)
    assert [answer for answer in answers if isinstance(answer, Failure)] == [Failure("2 tokens were written, not 3")]
    assert len(answers) == 2


def test_the_engines_loop_waits_for_later_streams() -> None:
    engine = FakeEngine()
    streams = [
        Stream((), [question(2)], after=0.2),
        Stream((), [question(1, prompt=6)]),
        Stream((), [question(3)], after=0.1),
    ]
    begun = time.monotonic()
    answers = run_streams(engine, streams, lambda question: question.output_tokens)
    assert [len(ids) for ids in engine.added] == [6, 3, 3]
    sent = [answer.sent - begun for answer in answers if isinstance(answer, Sample)]
    assert [answer.output_tokens for answer in answers if isinstance(answer, Sample)] == [1, 3, 2]
    assert sent[1] >= 0.1
    assert sent[2] >= 0.2


def test_engine_options_as_flags() -> None:
    options = {"dtype": "bfloat16", "enforce_eager": True, "enable_prefix_caching": False, "max_model_len": 4096}
    more = {"limit_mm_per_prompt": {"image": 1}, "cudagraph_capture_sizes": [1, 2]}
    assert vllm_flags(options | more) == [
        *("--dtype", "bfloat16", "--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "4096"),
        *("--limit-mm-per-prompt", '{"image": 1}', "--cudagraph-capture-sizes", "1", "2"),
    ]


def test_endpoints_share_a_start() -> None:
    assert groups(["vllm-serve", "triton-chat", "engine", "tensorrt_llm"]) == [
        ("vllm-serve",),
        ("triton-chat", "tensorrt_llm"),
        ("engine",),
    ]
    names = ["triton-chat", "ensemble", "tensorrt_llm", "engine", "vllm-serve", "vllm-serve:4"]
    assert groups(names) == [tuple(names[:3]), ("engine",), ("vllm-serve",), ("vllm-serve:4",)]


def engine_options(folder: Path, **passed: float) -> EngineOptions:
    return EngineOptions(TOKEN_RATE_ENGINE, str(folder), passed)


def test_the_stack_can_load_the_token_rate_engine(qwen3_tokenizer_dir: Path) -> None:
    options = parse_options([str(qwen3_tokenizer_dir), *token_rate_flags(200.0)])
    assert (options.engine_name, options.engine) == (TOKEN_RATE_ENGINE, {"token_rate": 200})
    assert isinstance(build_engine(engine_options(qwen3_tokenizer_dir, **options.engine)), TokenRateEngine)


async def generate(engine: TokenRateEngine, tokens: int) -> list[tuple[float, int, FinishReason | None]]:
    made: list[tuple[float, int, FinishReason | None]] = []
    await engine.generate(
        Generation([1, 2, 3], tokens), lambda piece: made.append((time.monotonic(), len(piece.ids), piece.finish))
    )
    return made


async def test_the_token_rate_engine_writes_as_many_tokens_as_requested(qwen3_tokenizer_dir: Path) -> None:
    engine = TokenRateEngine(engine_options(qwen3_tokenizer_dir, token_rate=50, max_num_seqs=2))
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


async def test_a_late_reader_gets_several_tokens_at_once(qwen3_tokenizer_dir: Path) -> None:
    engine = TokenRateEngine(engine_options(qwen3_tokenizer_dir, token_rate=200))
    await engine.start()
    pieces = stream_of(engine, Generation([1], 100))
    await anext(pieces)
    time.sleep(0.2)  # the loop is busy elsewhere
    assert len((await anext(pieces)).ids) >= 30
    await pieces.aclose()
    assert engine.statistics()["running"] == 0
    engine.shutdown()
