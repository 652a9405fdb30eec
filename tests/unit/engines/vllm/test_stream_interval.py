# SPDX-License-Identifier: Apache-2.0
"""How vLLM's own output processor hands tokens over while the interval changes."""

from types import SimpleNamespace

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector

from engines.vllm import stream_interval
from engines.vllm.stream_interval import StreamInterval


class Streams:
    """Requests in an output processor. `step` adds a token to each named one; `handed_over` has the outputs of each."""

    def __init__(self, stream_interval: int = 1) -> None:
        self.processor = OutputProcessor(None, log_stats=False, stream_interval=stream_interval)
        self.handed_over: dict[str, list[list[int]]] = {}
        self.made: dict[str, list[int]] = {}
        self._collectors: dict[str, RequestOutputCollector] = {}

    def add(self, name: str) -> None:
        params = SamplingParams(max_tokens=1000, detokenize=False, output_kind=RequestOutputKind.DELTA)
        request = EngineCoreRequest(name, [1, 2], None, params, None, 0.0, None, None, None, external_req_id=name)
        self._collectors[name] = RequestOutputCollector(RequestOutputKind.DELTA, name)
        self.processor.add_request(request, None, queue=self._collectors[name])
        self.handed_over[name], self.made[name] = [], []

    def step(self, *names: str, last: bool = False) -> None:
        for name in names:
            token = 100 * len(self.handed_over) + len(self.made[name])
            self.made[name].append(token)
            reason = FinishReason.LENGTH if last else None
            self.processor.process_outputs([EngineCoreOutput(name, [token], finish_reason=reason)])
            output = self._collectors[name].get_nowait()
            if output is not None:
                self.handed_over[name].append(list(output.outputs[0].token_ids))


def test_no_token_is_lost_or_repeated_while_the_interval_changes() -> None:
    streams = Streams()
    interval = StreamInterval(streams.processor)
    streams.add("early")
    for number, held in enumerate((1, 1, 8, 8, 100, 3, 1, 1, 8, 1)):
        interval.adjust(held, 1)
        if number == 4:
            streams.add("late")
        for _ in range(5):
            streams.step(*streams.handed_over)
    streams.step("early", "late", last=True)
    for name, outputs in streams.handed_over.items():
        assert [token for tokens in outputs for token in tokens] == streams.made[name]


def test_the_interval_follows_the_tokens_per_response() -> None:
    streams = Streams()
    interval = StreamInterval(streams.processor)
    for held, tokens in ((1.0, 1), (1.4, 1), (4.0, 3), (10.7, 8), (400.0, 16), (16.0, 12), (3.0, 2), (2.0, 1)):
        interval.adjust(held, 1)
        assert interval.tokens == tokens


@pytest.mark.parametrize(("on_cpu", "expected"), [(True, [1, 1, 1, 2, 4, 16]), (False, [1, 1, 1, 1, 1, 1])])
def test_on_a_cpu_the_number_of_streams_raises_it(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, expected: list[int]
) -> None:
    monkeypatch.setattr(stream_interval, "current_platform", SimpleNamespace(is_cpu=lambda: on_cpu))
    monkeypatch.setattr(stream_interval.os, "sched_getaffinity", lambda _: {0, 1})
    interval = StreamInterval(Streams().processor)
    found = []
    for streams in (0, 1, 7, 8, 16, 100):
        interval.adjust(1.0, streams)
        found.append(interval.tokens)
    assert found == expected


def test_tokens_are_collected_but_the_first_is_handed_over_at_once() -> None:
    streams = Streams()
    interval = StreamInterval(streams.processor)
    streams.add("before")
    streams.step("before")
    interval.adjust(4.0, 1)
    streams.add("after")
    for _ in range(7):
        streams.step("before", "after")
    assert [len(tokens) for tokens in streams.handed_over["before"]] == [1, 3, 3]
    assert [len(tokens) for tokens in streams.handed_over["after"]] == [1, 3, 3]


def test_it_never_falls_below_the_option() -> None:
    interval = StreamInterval(Streams(stream_interval=5).processor)
    interval.adjust(1.0, 1)
    assert interval.tokens == 5
