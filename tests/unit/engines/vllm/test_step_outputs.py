# SPDX-License-Identifier: Apache-2.0
"""New ids go past vLLM's output processor, and nothing is lost or repeated beside it."""

import asyncio
from typing import Any

import numpy as np
import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.metrics.stats import IterationStats, PrefillStats, RequestSpecDecodeMetrics

from engines.engine import Generation, Tokens
from engines.vllm.outputs import Outputs
from engines.vllm.step_outputs import StepOutputs


class Processor:
    """vLLM's output processor with requests; `got` has what was handed over of each, `read` what vLLM read itself."""

    def __init__(self, stream_interval: int = 1) -> None:
        self.vllm = OutputProcessor(None, log_stats=True, stream_interval=stream_interval)
        self.got: dict[str, list[Tokens]] = {}
        self.read: list[EngineCoreOutput] = []
        self.stats = IterationStats()
        own = self.vllm.process_outputs

        def process(outputs: list[EngineCoreOutput], *arguments: Any, **more: Any) -> Any:
            self.read += outputs
            return own(outputs, *arguments, **more)

        self.vllm.process_outputs = process  # type: ignore[method-assign]
        StepOutputs(self.vllm)

    def add(self, name: str, **generation: Any) -> Outputs:
        """Add a request that has had its first token, 1."""
        params = SamplingParams(max_tokens=1000, detokenize=False, output_kind=RequestOutputKind.DELTA)
        request = EngineCoreRequest(name, [1, 2], None, params, None, 0.0, None, None, None, external_req_id=name)
        queue = RequestOutputCollector(RequestOutputKind.DELTA, name)
        self.vllm.add_request(request, None, queue=queue)
        self.got[name] = []
        outputs = Outputs(Generation([1, 2], 1000, **generation), self.got[name].append)
        outputs.take_over(queue)
        self.step(EngineCoreOutput(name, [1], prefill_stats=PrefillStats()))
        self.read.clear()
        return outputs

    def step(self, *outputs: EngineCoreOutput) -> None:
        self.vllm.process_outputs(list(outputs), 5.0, self.stats)

    def ids(self, name: str) -> list[list[int]]:
        return [tokens.ids for tokens in self.got[name]]


async def _ordinary_tokens() -> None:
    processor = Processor()
    for name in "ab":
        processor.add(name)
    for token in (2, 3):
        processor.step(*(EngineCoreOutput(name, [token]) for name in "ab"))
    processor.step(EngineCoreOutput("a", [4, 5]))
    assert processor.read == []
    assert processor.ids("a") == [[1], [2], [3], [4, 5]]
    assert processor.ids("b") == [[1], [2], [3]]
    assert processor.stats.num_generation_tokens == 8
    state = processor.vllm.request_states["a"]
    assert (state.stats.num_generation_tokens, state.stats.last_token_ts) == (5, 5.0)
    assert state.detokenizer.output_token_ids == [1, 2, 3, 4, 5]


async def _last_output() -> None:
    processor = Processor()
    outputs = processor.add("a")
    processor.step(EngineCoreOutput("a", [2]))
    processor.step(EngineCoreOutput("a", [3], finish_reason=FinishReason.LENGTH))
    await asyncio.wait_for(outputs.ended(), 1)
    assert outputs.finished and processor.ids("a") == [[1], [2], [3]]
    assert not processor.vllm.request_states
    # A late output of a request that has ended.
    processor.step(EngineCoreOutput("a", [4]))
    assert processor.ids("a") == [[1], [2], [3]]


async def _stop_words() -> None:
    processor = Processor()
    outputs = processor.add("a", stop_words=[[2, 3]])
    processor.step(EngineCoreOutput("a", [2]))
    processor.step(EngineCoreOutput("a", [3, 4]))
    await asyncio.wait_for(outputs.ended(), 1)
    processor.step(EngineCoreOutput("a", [5]))
    assert processor.ids("a") == [[1], [2], [3]]
    assert processor.got["a"][-1].finish is not None and not outputs.finished


async def _interval() -> None:
    processor = Processor(stream_interval=3)
    processor.add("a")
    for token in range(2, 6):
        processor.step(EngineCoreOutput("a", [token]))
    assert len(processor.read) == 4
    assert processor.ids("a") == [[1], [2, 3, 4]]


async def _whole_answer() -> None:
    processor = Processor()
    processor.add("a", streaming=False)
    processor.step(EngineCoreOutput("a", [2]))
    assert len(processor.read) == 1


@pytest.mark.parametrize("case", [_ordinary_tokens, _last_output, _stop_words, _interval, _whole_answer])
def test_beside_vllm(case: Any) -> None:
    asyncio.run(case())


@pytest.mark.parametrize(
    "more",
    [
        {"events": []},
        {"spec_decode_metrics": RequestSpecDecodeMetrics.new(3)},
        {"routed_experts": np.zeros((1, 2, 3), np.int32)},
        {"num_nans_in_logits": 2},
        {"trace_headers": {"traceparent": "00"}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_vllm_reads_what_is_more_than_ids(more: dict[str, Any]) -> None:
    async def case() -> None:
        processor = Processor()
        processor.add("a")
        output = EngineCoreOutput("a", [2], **more)
        processor.step(output)
        assert processor.read[0] is output
        assert processor.ids("a") == [[1], [2]]

    asyncio.run(case())


def test_an_error_in_one_request_leaves_the_others() -> None:
    async def case() -> None:
        processor = Processor()
        outputs = processor.add("a")
        processor.add("b")
        outputs._put = None  # type: ignore[assignment] # any error
        processor.step(EngineCoreOutput("a", [2]), EngineCoreOutput("b", [2]))
        with pytest.raises(TypeError):
            await outputs.ended()
        assert processor.ids("b") == [[1], [2]]

    asyncio.run(case())
