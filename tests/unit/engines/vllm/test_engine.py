# SPDX-License-Identifier: Apache-2.0
"""How vLLM's processes are started, and whose fault its errors are."""

import asyncio
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.metrics.stats import RequestSpecDecodeMetrics

from common.errors import RequestError
from common.finish_reason import FinishReason
from engines.engine import Generation, Tokens
from engines.tensors import Inputs, Outputs
from engines.vllm import engine as vllm_engine
from engines.vllm import outputs as vllm_outputs
from engines.vllm.errors import request_error
from tests.support.engine_streams import stream_of

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


class Started(Exception):
    """Raised when vLLM would start its processes."""


@pytest.fixture
def fake_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "engine_args", lambda options: SimpleNamespace(enable_lora=False))
    monkeypatch.setattr(vllm_engine, "engine_config", lambda args: (_ for _ in ()).throw(Started))


@pytest.mark.parametrize(("given", "method"), [(None, "spawn"), ("fork", "fork")])
@pytest.mark.usefixtures("fake_configuration")
def test_vllms_processes_are_spawned_unless_the_environment_says_otherwise(given, method, monkeypatch):
    # Set and deleted, so that monkeypatch also undoes what `start` writes.
    monkeypatch.setenv(METHOD, given or "")
    if given is None:
        monkeypatch.delenv(METHOD)
    with pytest.raises(Started):
        asyncio.run(vllm_engine.VllmEngine(None).start())
    assert os.environ[METHOD] == method


@pytest.mark.parametrize(
    ("error", "kind", "param"),
    [
        (VLLMValidationError("temperature must be in [0, 2]", parameter="temperature", value=9), "invalid_request", "temperature"),
        (VLLMValidationError("min_tokens must be at most 4"), "invalid_request", "min_tokens"),
        (VLLMValidationError("too many", parameter="prompt_logprobs"), "invalid_request", "prompt_logprobs"),
        (VLLMValidationError("Token id 9 is out of vocabulary"), "invalid_request", "input_ids"),
        (VLLMValidationError("The decoder prompt contains a(n) image item with 9 embedding tokens, which"), "invalid_request", "messages"),
        (ValueError("no such thing"), "invalid_request", None),
        (EngineDeadError(), "unavailable", None),
    ],
    ids=str,
)  # fmt: skip
def test_errors_of_vllm(error: Exception, kind: str, param: str | None) -> None:
    found = request_error(error)
    assert found is not None and (found.kind, found.param) == (kind, param)
    assert "parameter=" not in found.message
    wrapped = EngineGenerateError()
    wrapped.__cause__ = VLLMValidationError("top_p must be in (0, 1]")
    caused = request_error(wrapped)
    assert caused is not None and caused.param == "top_p"
    assert request_error(EngineGenerateError()) is None and request_error(KeyError(1)) is None


def engine_of(*outputs: object, asked: list[SamplingParams] | None = None) -> vllm_engine.VllmEngine:
    """An engine whose vLLM gives these outputs, or raises the one that is an error. asked: gets the parameters."""
    engine = object.__new__(vllm_engine.VllmEngine)

    async def add_request(_: object, __: object, params: SamplingParams, **___: object) -> RequestOutputCollector:
        if asked is not None:
            asked.append(params)
        queue = RequestOutputCollector(RequestOutputKind.DELTA, "r")
        # The first is there at once, the others come later.
        for index, output in enumerate(outputs):
            if index:
                asyncio.get_running_loop().call_soon(queue_put, queue, output)
            else:
                queue.put(output)  # type: ignore[arg-type] # an output or an error
        return queue

    def queue_put(queue: RequestOutputCollector, output: object) -> None:
        queue.put(output)  # type: ignore[arg-type]

    async def abort(request_id: str, internal: bool) -> None:
        aborted.append(request_id)

    async def build(generation: Generation) -> None:
        return None

    aborted: list[str] = []
    llm = SimpleNamespace(add_request=add_request, abort=abort, errored=False, aborted=aborted)
    engine._llm, engine._prompts = llm, SimpleNamespace(build=build)  # type: ignore[assignment]
    engine._defaults, engine._running, engine.adapters = {}, 0, None
    engine._args = SimpleNamespace(speculative_config=None)  # type: ignore[assignment]
    return engine


def output(finish_reason: str | None, stop_reason: int | None = None, ids: tuple[int, ...] = (7,)) -> RequestOutput:
    completion = CompletionOutput(
        0, "", ids, cumulative_logprob=None, logprobs=None, finish_reason=finish_reason, stop_reason=stop_reason
    )
    return RequestOutput("r", None, [1], None, [completion], finish_reason is not None)


async def collected(engine: vllm_engine.VllmEngine) -> list[FinishReason | None]:
    return [tokens.finish async for tokens in stream_of(engine, Generation([1], 8, end_id=9))]


@pytest.mark.parametrize(
    ("finish", "stop", "expected"),
    [
        ("length", None, FinishReason.LENGTH),
        ("abort", None, FinishReason.CANCELLED),
        ("stop", 9, FinishReason.END_ID),
        ("stop", 8, FinishReason.STOP_WORDS),
    ],
)
def test_finish_reasons(finish: str, stop: int | None, expected: FinishReason) -> None:
    assert asyncio.run(collected(engine_of(output(None), output(finish, stop)))) == [None, expected]


def test_the_last_tokens_have_the_count_of_drafts() -> None:
    last = output("length")
    last.outputs[0].spec_decode_metrics = RequestSpecDecodeMetrics.new(4)
    for accepted in (3, 0):
        last.outputs[0].spec_decode_metrics.observe(num_draft_tokens=4, num_accepted=accepted)

    async def run() -> list[Tokens]:
        return [tokens async for tokens in stream_of(engine_of(output(None), last), Generation([1], 8))]

    first, second = asyncio.run(run())
    assert (first.draft_tokens, first.accepted_draft_tokens) == (None, None)
    assert (second.draft_tokens, second.accepted_draft_tokens) == (8, 3)
    first.extend(second)
    requested = {"total_draft_tokens", "total_accepted_draft_tokens", "acceptance_rate"}
    outputs = Outputs(requested, Inputs(SimpleNamespace(inputs=list)), 1, 0, 0)  # type: ignore[arg-type] # a fake
    values = {tensor.name(): tensor.as_numpy().tolist() for tensor in outputs.tensors(first)}
    assert values == {
        "total_draft_tokens": [[8]],
        "total_accepted_draft_tokens": [[3]],
        "acceptance_rate": [[0.375]],
    }


@pytest.mark.parametrize("reason", ["error", "repetition"])
def test_an_end_by_an_error_is_the_engines_fault(reason: str) -> None:
    engine = engine_of(output(None), output(reason))
    with pytest.raises(RequestError) as caught:
        asyncio.run(collected(engine))
    assert caught.value.kind == "internal" and engine._running == 0


def test_only_errors_of_vllm_can_be_the_requests_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = engine_of(output(None), VLLMValidationError("top_k must be an integer"))
    with pytest.raises(RequestError) as caught:
        asyncio.run(collected(refused))
    assert (caught.value.kind, caught.value.param, refused._running) == ("invalid_request", "top_k", 0)

    def own(*_: object) -> None:
        raise ValueError("zip() argument 2 is shorter than argument 1")

    monkeypatch.setattr(vllm_outputs, "_tokens", own)
    failing = engine_of(output(None))
    with pytest.raises(ValueError, match="zip") as raised:
        asyncio.run(collected(failing))
    assert not isinstance(raised.value, RequestError) and failing._running == 0


def test_log_probabilities_of_the_prompt_have_ranks() -> None:
    """The prompt's own token is first; vLLM gives it besides the likeliest ones, of which it may be one."""
    given = output("length")
    given.prompt_logprobs = [
        None,
        {2: Logprob(-3.0, 9), 5: Logprob(-0.5, 1), 6: Logprob(-1.0, 2)},
        {5: Logprob(-0.5, 1), 6: Logprob(-1.0, 2)},
    ]

    async def first() -> Tokens:
        generation = Generation([1, 2, 5], 8, prompt_logprobs=2, streaming=False)
        (tokens,) = [tokens async for tokens in stream_of(engine_of(given), generation)]
        return tokens

    tokens = asyncio.run(first())
    assert tokens.prompt_ids == [[1, 1, 1], [2, 5, 6], [5, 5, 6]]
    assert tokens.prompt_ranks == [0, 9, 1]
    assert tokens.prompt_logprobs is not None and tokens.prompt_logprobs[1:] == [[-3.0, -0.5, -1.0], [-0.5, -0.5, -1.0]]


async def test_stop_words_of_several_ids_end_the_request_in_the_engine() -> None:
    engine = engine_of(output(None, ids=(5, 6)), output(None, ids=(7, 8)), output(None, ids=(9,)))
    generation = Generation([1], 8, stop_words=[[6, 7]])
    made = [(tokens.ids, tokens.finish) async for tokens in stream_of(engine, generation)]
    assert made == [([5, 6], None), ([7], FinishReason.STOP_WORDS)]
    assert engine._llm.aborted == ["r"] and engine._running == 0  # type: ignore[attr-defined] # the fake's


async def test_stop_words_of_several_ids_end_the_request_in_the_engine_without_streaming_too() -> None:
    asked: list[SamplingParams] = []
    engine = engine_of(output(None, ids=(5, 6)), output(None, ids=(7, 8)), output(None, ids=(9,)), asked=asked)
    generation = Generation([1], 8, stop_words=[[6, 7]], streaming=False)
    made = [(tokens.ids, tokens.finish) async for tokens in stream_of(engine, generation)]
    assert made == [([5, 6, 7], FinishReason.STOP_WORDS)]
    assert engine._llm.aborted == ["r"] and asked[0].output_kind is RequestOutputKind.DELTA  # type: ignore[attr-defined]
    await anext(stream_of(engine_of(output("length"), asked=asked), replace(generation, stop_words=[[6]])))
    assert asked[1].output_kind is RequestOutputKind.FINAL_ONLY


async def test_a_cancelled_generation_is_aborted_in_the_engine_unless_that_is_dead() -> None:
    for errored, aborted in ((False, ["r"]), (True, [])):
        engine = engine_of(output(None))
        engine._llm.errored = errored  # type: ignore[misc] # the fake's
        stream = stream_of(engine, Generation([1], 8))
        await anext(stream)
        await stream.aclose()
        assert engine._llm.aborted == aborted and engine._running == 0  # type: ignore[attr-defined] # the fake's


async def test_logprobs_of_the_prompt_are_refused_with_adapters() -> None:
    engine = engine_of()
    engine.adapters = SimpleNamespace()
    with pytest.raises(RequestError, match="no log-probabilities of the prompt"):
        await anext(stream_of(engine, Generation([7], 1, prompt_logprobs=0)))


async def test_a_budget_beside_a_guide_is_refused_with_speculative_decoding() -> None:
    engine = engine_of(output("length"), output("length"))
    constrained = Generation([7], 1, thinking_token_budget=4, guide_type="json")
    assert await anext(stream_of(engine, constrained))
    engine._args.speculative_config = {"method": "ngram"}
    with pytest.raises(RequestError, match="no thinking_token_budget beside a guide") as refused:
        await anext(stream_of(engine, constrained))
    assert (refused.value.kind, refused.value.param) == ("invalid_request", "thinking_token_budget")
    assert await anext(stream_of(engine, Generation([7], 1, thinking_token_budget=4)))
