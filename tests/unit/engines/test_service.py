# SPDX-License-Identifier: Apache-2.0
"""The service of the model `tensorrt_llm` on a fake engine: streaming, stopping, refusing, failing."""

import asyncio
import itertools
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_python_backend_utils import InferenceResponse, MetricFamily, Tensor

from common.adapters import Adapter
from common.adapters import from_json as adapters_of
from common.errors import RequestError
from common.finish_reason import FinishReason
from common.response_batch import TokenRow, decode_tokens
from common.shared_bytes import SharedBytes
from common.versions import Versions
from engines import event_loop
from engines import service as services
from engines.adapters import AdapterOptions, AdapterTable
from engines.engine import Generation, Put, Tokens
from engines.peers import Peers
from engines.service import EngineService
from python_backend.api import FINAL
from python_backend.config import ModelParameters
from tests.support.plain_adapter import write_adapter, write_base

WAIT = 30.0
ENDLESS = 10**9
OUTPUTS = ("output_ids", "sequence_length", "stream_id", "finish_reason", "error", "reasoning_open")


class FakeEngine:
    """Gives one id a step: `ids` of its number. With max_tokens 13 it refuses, with 14 it fails, with 15 it gives up."""

    def __init__(self) -> None:
        self.left: list[list[int]] = []
        self.adapters_used: list[int | None] = []
        self.is_shut_down = False
        self.ids: Callable[[int], Any] = lambda step: step

    async def start(self) -> None: ...

    async def generate(self, generation: Generation, put: Put) -> None:
        self.adapters_used.append(generation.lora_task_id)
        if generation.max_tokens == 13:
            raise RequestError("no such ids", param="input_ids")
        if generation.max_tokens == 14:
            raise ZeroDivisionError
        if generation.max_tokens == 15:
            return
        try:
            step = 0
            while True:
                step += 1
                last = step == generation.max_tokens
                put(Tokens([self.ids(step)], finish=FinishReason.LENGTH if last else None))
                if last:
                    return
                await asyncio.sleep(0.001)
        finally:
            self.left.append(generation.prompt_ids)

    def statistics(self) -> Mapping[str, float]:
        return {"running": 1.0}

    def shutdown(self) -> None:
        self.is_shut_down = True


class FakeRequest:
    """A request and, as Triton's sender, its responses."""

    def __init__(self, request_id: str, max_tokens: int, parameters: Mapping[str, Any] | None = None, **more: Any):
        numbers = {"input_lengths": 2, "request_output_len": max_tokens} | more
        arrays = {name: value if isinstance(value, np.ndarray) else [[value]] for name, value in numbers.items()}
        self._inputs = [Tensor(name, np.array(array)) for name, array in arrays.items()]
        if "input_ids" not in numbers:
            self._inputs.append(Tensor("input_ids", np.array([[5, 6]], np.int32)))
        self._request_id, self._parameters = request_id, dict(parameters or {})
        self.responses: list[InferenceResponse | None] = []
        self.outputs = list(OUTPUTS)
        self.first, self.ended, self.cancelled = threading.Event(), threading.Event(), False

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return self._request_id

    def parameters(self) -> str:
        return json.dumps(self._parameters) if self._parameters else ""

    def requested_output_names(self) -> set[str]:
        return set(self.outputs)

    def get_response_sender(self) -> "FakeRequest":
        return self

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.ended.is_set(), "a response after the last"
        self.responses.append(response)
        self.first.set()
        if flags & FINAL:
            self.ended.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def wait(self) -> list[dict[str, Any]]:
        """The outputs of each response once the request has ended."""
        assert self.ended.wait(WAIT)
        found = [response.output_tensors for response in self.responses if response is not None]
        return [{tensor.name(): tensor.as_numpy().tolist() for tensor in tensors} for tensors in found]

    def finish(self) -> FinishReason:
        return FinishReason(self.wait()[-1]["finish_reason"][0][0])


@pytest.fixture(autouse=True)
def switch_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's stays as it is for other tests."""
    monkeypatch.setattr(event_loop, "SWITCH_INTERVAL_S", sys.getswitchinterval())


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def service(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineService]:
    monkeypatch.setattr(MetricFamily, "made", {})
    monkeypatch.setattr(services, "CANCEL_PERIOD_S", 0.01)
    service = EngineService(engine, max_requests=3, versions=Versions("fake", "1.2", gpu="1x GPU"))
    service.start()
    yield service
    service.close()
    assert engine.is_shut_down


def accept(service: EngineService, *arguments: Any, **more: Any) -> FakeRequest:
    request = FakeRequest(*arguments, **more)
    service.accept(request)
    return request


def test_a_generation_is_streamed_and_its_last_response_ends_the_request(service: EngineService) -> None:
    request = accept(service, "r", 3)
    responses = request.wait()
    assert [token for each in responses for token in each["output_ids"][0][0]] == [1, 2, 3]
    assert responses[-1]["sequence_length"] == [[3]] and request.finish() is FinishReason.LENGTH
    assert MetricFamily.made["triton_chat_engine_running"].calls == [1.0]


def test_requests_of_one_batch_are_served_each_for_itself(service: EngineService, engine: FakeEngine) -> None:
    good, refused, other = requests = [FakeRequest("good", 3), FakeRequest("refused", 13), FakeRequest("other", 2)]
    service.accept(*requests)
    assert good.finish() is other.finish() is FinishReason.LENGTH
    assert refused.ended.wait(WAIT) and "no such ids" in refused.responses[0].error.message()


def test_the_engine_has_the_first_request_of_a_batch_before_the_last_is_read(
    service: EngineService, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    accept_one, generate = service._accept, engine.generate

    def noted_accept(request: Any, sender: Any) -> None:
        order.append(f"read {request.request_id()}")
        accept_one(request, sender)

    async def noted_generate(generation: Generation, put: Put) -> None:
        order.append(f"given {generation.request_id}")
        await generate(generation, put)

    monkeypatch.setattr(service, "_accept", noted_accept)
    monkeypatch.setattr(engine, "generate", noted_generate)
    requests = [FakeRequest(name, 1) for name in ("a", "b", "c")]
    service.accept(*requests)
    for request in requests:
        request.wait()
    assert order.index("given a") < order.index("read c")
    assert [one for one in order if one.startswith("read")] == ["read a", "read b", "read c"]


def test_a_stop_does_not_overtake_its_request_in_a_batch_before(service: EngineService) -> None:
    requests = [FakeRequest(name, 1) for name in ("a", "b")] + [FakeRequest("c", ENDLESS)]
    stop_of_c = FakeRequest("c", 1, stop=True)
    together = threading.Event()
    service._loop.call(together.wait, WAIT)
    service.accept(*requests)
    service.accept(stop_of_c)
    together.set()
    assert stop_of_c.ended.wait(WAIT)
    assert requests[-1].finish() is FinishReason.CANCELLED


def test_the_versions_are_told_only_if_nothing_else_is_asked(service: EngineService) -> None:
    asking = FakeRequest("probe", 1, stop=True)
    asking.outputs = ["build_info"]
    service.accept(asking)
    ((told,),) = [[response["build_info"] for response in asking.wait()]]
    assert Versions.from_json(json.loads(told[0][0])) == Versions("fake", "1.2", gpu="1x GPU")
    stopping = accept(service, "other", 1, stop=True)
    assert stopping.wait() == []


def test_the_statistics_are_told_with_the_adapters_of_an_engine_that_has_them(
    service: EngineService, engine: FakeEngine
) -> None:
    def told() -> Any:
        asking = FakeRequest("probe", 1, stop=True)
        asking.outputs = ["statistics"]
        service.accept(asking)
        ((text,),) = [[response["statistics"] for response in asking.wait()]]
        return json.loads(text[0][0])

    assert told() == engine.statistics()
    engine.adapters_in_use = lambda: {"max_lora": 2, "running_lora_adapters": ["a"]}  # type: ignore[attr-defined]
    assert told() == {**engine.statistics(), "max_lora": 2, "running_lora_adapters": ["a"]}


@pytest.mark.parametrize("fault", [ZeroDivisionError("no numbers"), RequestError("not now", kind="unavailable")])
def test_a_question_that_fails_is_answered(service: EngineService, engine: FakeEngine, fault: Exception) -> None:
    """Triton waits for the end of every request."""

    def fail() -> Any:
        raise fault

    engine.statistics = fail  # type: ignore[method-assign]
    asking = FakeRequest("probe", 1, stop=True)
    asking.outputs = ["statistics"]
    service.accept(asking)
    asking.wait()
    error = RequestError.decode(asking.responses[0].error.message())
    assert error is not None and error.kind == (fault.kind if isinstance(fault, RequestError) else "internal")


@pytest.mark.parametrize("name", ["input_ids", "input_lengths", "request_output_len"])
def test_a_request_without_what_every_request_needs_is_refused(service: EngineService, name: str) -> None:
    """Triton lets it through if an optional input makes up the number."""
    request = FakeRequest("r", 3)
    request._inputs = [one for one in request._inputs if one.name() != name]
    service.accept(request)
    assert request.ended.wait(WAIT) and request.responses[0] is not None
    error = RequestError.decode(request.responses[0].error.message())
    assert error is not None and (error.kind, error.param) == ("invalid_request", name)


def ask_adapters(service: EngineService, **parameters: Any) -> FakeRequest:
    asking = FakeRequest("probe", 1, parameters, stop=True)
    asking.outputs = ["adapters"]
    service.accept(asking)
    return asking


def told_adapters(asking: FakeRequest) -> list[str]:
    ((told,),) = [[response["adapters"] for response in asking.wait()]]
    return [adapter.name for adapter in adapters_of(told[0][0])]


def test_adapters_are_told_loaded_and_chosen(
    service: EngineService, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told_adapters(ask_adapters(service)) == []
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "sql")
    change = {"load_adapter": "sql", "adapter_path": str(adapter)}
    off = ask_adapters(service, **change)
    off.wait()
    assert "enable_lora" in off.responses[0].error.message()

    async def nothing(adapter: Adapter) -> None: ...

    table = AdapterTable(AdapterOptions(allowed=(tmp_path,)), base, nothing, nothing)
    monkeypatch.setattr(service, "_adapters", table)
    assert told_adapters(ask_adapters(service, **change)) == told_adapters(ask_adapters(service)) == ["sql"]
    again = ask_adapters(service, **change)
    again.wait()
    error = RequestError.decode(again.responses[0].error.message())
    assert error is not None and error.param == "lora_name"
    (sql,) = table.all()
    accept(service, "r", 1, lora_task_id=sql.id).wait()
    accept(service, "r", 1).wait()
    assert engine.adapters_used == [sql.id, None]
    assert told_adapters(ask_adapters(service, unload_adapter="sql")) == []


def test_the_end_of_the_prompt_goes_with_the_first_response_of_each_sequence(service: EngineService) -> None:
    responses = accept(service, "r", 2, num_return_sequences=2, reasoning_open=1).wait()
    streams = [each["stream_id"][0][0] for each in responses]
    firsts = {streams.index(stream) for stream in streams}
    assert [n for n, each in enumerate(responses) if each.get("reasoning_open") == [[1]]] == sorted(firsts)
    assert not any("reasoning_open" in each for each in accept(service, "s", 3).wait())


def test_several_sequences_end_their_request_once_and_have_streams_of_their_own(service: EngineService) -> None:
    responses = accept(service, "r", 2, num_return_sequences=2).wait()
    assert len({each["stream_id"][0][0] for each in responses}) == 2
    assert sum("finish_reason" in each for each in responses) == 2


@pytest.mark.parametrize("parameters", [{}, {"stream_id": 1}, {"owner": "o"}])
def test_a_stop_cancels_by_request_by_stream_and_by_client(
    service: EngineService, engine: FakeEngine, parameters: dict[str, Any]
) -> None:
    request, other = accept(service, "r", ENDLESS, {"owner": "o"}), accept(service, "s", ENDLESS, {"owner": "p"})
    assert request.first.wait(WAIT) and other.first.wait(WAIT)
    stop = accept(service, "" if "owner" in parameters else "r", 1, parameters, stop=True)
    assert stop.wait() == [] and stop.responses == [None]
    assert request.finish() is FinishReason.CANCELLED
    assert engine.left == [[5, 6]] and not other.ended.is_set()


def test_a_stop_of_another_stream_cancels_nothing(service: EngineService) -> None:
    request = accept(service, "r", ENDLESS)
    assert request.first.wait(WAIT)
    accept(service, "r", 1, {"stream_id": 2}, stop=True).wait()
    assert not request.ended.wait(0.05)


def test_a_stop_before_the_first_step_is_answered_as_well(service: EngineService, engine: FakeEngine) -> None:
    request, stop = FakeRequest("r", ENDLESS), FakeRequest("r", 1, stop=True)
    # Both in one turn of the loop, so that the task of the first has not begun.
    service._loop.call(lambda: [service._accept(each, each) for each in (request, stop)])
    assert request.finish() is FinishReason.CANCELLED
    assert engine.left == []


def test_a_client_that_disconnects_cancels_its_generation(service: EngineService) -> None:
    request = accept(service, "r", ENDLESS)
    assert request.first.wait(WAIT)
    request.cancelled = True
    assert request.finish() is FinishReason.CANCELLED


def is_refused(request: FakeRequest) -> bool:
    """Whether there was no room for it."""
    assert request.wait() == [{}]
    error = RequestError.decode(request.responses[0].error.message())
    return error is not None and error.kind == "unavailable"


def test_more_requests_than_allowed_are_refused(service: EngineService) -> None:
    running = [accept(service, str(number), ENDLESS) for number in range(3)]
    assert all(request.first.wait(WAIT) for request in running)
    refused = accept(service, "r", 1)
    assert is_refused(refused)


@pytest.mark.parametrize(("max_tokens", "kind"), [(13, "invalid_request"), (14, "internal"), (15, "internal")])
@pytest.mark.parametrize("as_output", [True, False])
def test_a_failure_is_an_error_or_an_output(
    service: EngineService, max_tokens: int, kind: str, as_output: bool
) -> None:
    request = accept(service, "r", max_tokens, {"error_output": as_output})
    (outputs,) = request.wait()
    text = outputs["error"][0][0].decode() if as_output else request.responses[0].error.message()
    error = RequestError.decode(text)
    assert error is not None and error.kind == kind


ODD: list[dict[str, Any]] = [
    *({"num_return_sequences": count} for count in (0, -1, 129, 2**31 - 1, -(2**31))),
    *({"beam_width": width} for width in (0, -1, 2)),
    *({"input_lengths": length} for length in (0, -1, 3)),
    *({"max_tokens": count} for count in (0, -1, -(2**31))),
    {"input_lengths": np.zeros((0, 1), np.int32), "input_ids": np.zeros((0, 2), np.int32)},
    {"streaming": np.zeros((0, 1), bool)},
    {"stop": np.zeros((0, 1), bool)},
    {"stop_words_list": np.zeros((0, 2, 3), np.int32)},
    {"guided_decoding_guide_type": np.zeros((0, 1), object)},
    {"decoder_input_ids": 1},
    {"lora_task_id": 1},
    {"guided_decoding_guide_type": b"\xff"},
    {"guided_decoding_guide_type": b"json", "guided_decoding_guide": b"\xff"},
    {"temperature": -1.0},
    {"min_tokens": 9},
    {"parameters": {"min_p": 5}},
    {"parameters": {"top_logprobs": 1e999}},
    {"parameters": {"traceparent": ["?"]}},
]


async def all_ended(service: EngineService) -> None:
    """Return when no generation is left; their tasks end just after their last response."""
    while len(service._running):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("as_output", [True, False])
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_every_request_ends_once(service: EngineService, odd: dict[str, Any], as_output: bool) -> None:
    fields = {"max_tokens": 2, "parameters": {}} | odd
    parameters = fields.pop("parameters") | {"error_output": as_output}
    request = FakeRequest("r", fields.pop("max_tokens"), parameters, **fields)
    service.accept(request)
    responses = request.wait()
    if "finish_reason" not in responses[-1]:
        text = responses[-1]["error"][0][0].decode() if as_output else request.responses[-1].error.message()
        error = RequestError.decode(text)
        assert error is not None and error.kind == "invalid_request" and error.param, error
    assert accept(service, "next", 1).finish() is FinishReason.LENGTH
    service._loop.run(all_ended(service))


@pytest.mark.parametrize("as_output", [True, False])
def test_a_request_that_cannot_be_read_ends_as_well(service: EngineService, as_output: bool) -> None:
    request = FakeRequest("r", 2, {"error_output": as_output})
    request._inputs.append(Tensor("stop_words_list", np.array([[1]])))
    service.accept(request)
    (outputs,) = request.wait()
    text = outputs["error"][0][0].decode() if as_output else request.responses[0].error.message()
    error = RequestError.decode(text)
    assert error is not None and error.kind == "internal"


def test_a_refusal_that_cannot_be_sent_does_not_hold_up_the_requests_behind_it(service: EngineService) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no shared memory")

    refused = FakeRequest("refused", 0)
    refused.send = fail  # type: ignore[method-assign]
    requests = [FakeRequest("r", 1), FakeRequest("s", 1)]
    service.accept(refused, *requests)
    requests.append(accept(service, "t", 1))
    assert [request.finish() for request in requests] == [FinishReason.LENGTH] * 3


def test_the_statistics_are_published_after_a_failure(
    service: EngineService, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = itertools.count(1)
    published = threading.Event()

    def statistics() -> Mapping[str, float]:
        step = next(steps)
        if step < 3:
            raise ZeroDivisionError
        published.set()
        return {"running": float(step)}

    monkeypatch.setattr(engine, "statistics", statistics)
    assert published.wait(WAIT)


def test_a_response_that_cannot_be_built_ends_its_request(
    service: EngineService, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ragged(generation: Generation, put: Put) -> None:
        put(Tokens([1]))
        put(Tokens([2], logprobs=[0.0], top_ids=[[1], [1, 2]], top_logprobs=[[0.0], [0.0, 0.0]]))
        put(Tokens([3], finish=FinishReason.LENGTH))

    monkeypatch.setattr(engine, "generate", ragged)
    monkeypatch.setattr(sys.modules[__name__], "OUTPUTS", (*OUTPUTS, "top_log_probs"))
    request = accept(service, "r", 3)
    request.wait()
    error = RequestError.decode(request.responses[-1].error.message())
    assert error is not None and error.kind == "internal"


def test_senders_of_pictures_know_an_engine_that_has_started(request: pytest.FixtureRequest) -> None:
    pictures = SharedBytes()
    assert not pictures.is_trusted()
    request.getfixturevalue("service")
    assert pictures.is_trusted()


def test_closing_ends_what_is_running(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetricFamily, "made", {})
    service = EngineService(engine)
    service.start()
    request = accept(service, "r", ENDLESS)
    assert request.first.wait(WAIT)
    service.close()
    assert request.finish() is FinishReason.CANCELLED and engine.is_shut_down


def test_the_ids_of_a_prompt_come_with_the_first_response(service: EngineService) -> None:
    for parameters, expected in (({"prompt_token_ids": True}, [[[5], [6]]]), ({}, None)):
        request = FakeRequest("r", 3, parameters)
        request.outputs.append("prompt_log_probs_ids")
        service.accept(request)
        first, *later = request.wait()
        assert first.get("prompt_log_probs_ids") == expected
        assert not any("prompt_log_probs_ids" in each for each in later)


def grouped(service: EngineService, name: str, max_tokens: int, **more: Any) -> FakeRequest:
    request = FakeRequest(name, max_tokens, {"response_group": "g", "chat": True}, **more)
    request.outputs = [*OUTPUTS, "token_batch"]
    service.accept(request)
    return request


def rows_in(requests: list[FakeRequest]) -> dict[str, list[TokenRow]]:
    """The rows that came in responses to any of the requests, by the request that they are of, in order."""
    rows: dict[str, list[TokenRow]] = defaultdict(list)
    for response in (one for request in requests for one in request.wait()):
        for row in decode_tokens(bytes(response["token_batch"][0])):
            rows[row.request_id].append(row)
    return {name: sorted(found, key=attrgetter("number")) for name, found in rows.items()}


def test_the_requests_of_a_group_share_responses_and_each_has_its_own_last(service: EngineService) -> None:
    requests = [grouped(service, name, 3, reasoning_open=1) for name in "ab"]
    rows = rows_in(requests)
    assert rows.keys() == {"a", "b"}
    for found in rows.values():
        assert [row.number for row in found] == list(range(len(found)))
        assert [token for row in found for token in row.ids] == [1, 2, 3]
        assert [row.finish for row in found] == [None] * (len(found) - 1) + [int(FinishReason.LENGTH)]
        first, *later = [row.begin for row in found]
        assert first is not None and json.loads(first.parameters)["chat"] is True and first.reasoning_open == 1
        assert later == [None] * len(later)
    assert all(request.responses[-1] is not None for request in requests)


@pytest.mark.parametrize("more", [{"return_log_probs": True}, {"num_return_sequences": 2}])
def test_what_a_batch_cannot_hold_has_responses_of_its_own(service: EngineService, more: dict[str, Any]) -> None:
    assert all("output_ids" in one and "token_batch" not in one for one in grouped(service, "r", 2, **more).wait())


def test_who_does_not_ask_for_batches_gets_none(service: EngineService) -> None:
    assert "token_batch" not in accept(service, "r", 2, {"response_group": "g"}).wait()[-1]


def test_a_stopped_request_of_a_group_ends_with_a_row_of_its_own(service: EngineService) -> None:
    request = grouped(service, "r", ENDLESS)
    assert request.first.wait(WAIT)
    accept(service, "r", 1, stop=True).wait()
    assert rows_in([request])["r"][-1].finish == int(FinishReason.CANCELLED)


def test_ids_of_numpy_are_as_good_as_pythons(service: EngineService, engine: FakeEngine) -> None:
    engine.ids = np.int64
    rows = rows_in([grouped(service, name, 3) for name in "ab"])
    assert [[token for row in found for token in row.ids] for found in rows.values()] == [[1, 2, 3], [1, 2, 3]]


def test_what_cannot_be_sent_fails_its_own_request_only(service: EngineService, engine: FakeEngine) -> None:
    wrong, right = FakeRequest("wrong", 2, {"response_group": "g"}), FakeRequest("right", 3, {"response_group": "g"})
    # The first id is of the first request.
    made = itertools.chain([object()], itertools.count())
    engine.ids = lambda step: next(made)
    for request in (wrong, right):
        request.outputs = [*OUTPUTS, "token_batch"]
        service.accept(request)
    rows = rows_in([wrong, right])
    (failed,) = rows["wrong"]
    error = RequestError.decode(failed.error or "")
    assert error is not None and error.kind == "internal" and failed.number == 0
    assert rows["right"][-1].finish == int(FinishReason.LENGTH) and rows["right"][-1].error is None


class SharedFakeEngine(FakeEngine):
    """What one of several processes has of an engine. Its report is the number of its requests so far."""

    def __init__(self) -> None:
        super().__init__()
        self.disconnected = threading.Event()

    async def start_with(self, peers: Peers) -> None:
        if peers.first:
            peers.give("sockets")
        else:
            assert await peers.given() == "sockets"

    def report(self) -> int:
        return len(self.adapters_used)

    def shared_statistics(self, reports: Sequence[int]) -> Mapping[str, Any]:
        return {"running": float(self.report() + sum(reports)), "running_lora_adapters": []}

    def disconnect(self) -> None:
        self.disconnected.set()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[list[EngineService]]:
    """Two services that share an engine as the processes of `tensorrt_llm` do, closed in this order."""
    monkeypatch.setattr(MetricFamily, "made", {})
    model = request.node.name
    made = [EngineService(SharedFakeEngine(), 3, model=model, instance=i, instances=2) for i in range(2)]
    starts = [threading.Thread(target=service.start) for service in reversed(made)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(WAIT)
    yield made
    for service in made:
        service.close()


def stop(service: EngineService, request_id: str, parameters: Mapping[str, Any] | None = None) -> FakeRequest:
    """Send a stop as clients do, which name no outputs: to Triton those are all."""
    request = FakeRequest(request_id, 1, parameters, stop=True)
    request.outputs = [*OUTPUTS, "build_info", "statistics", "adapters"]
    service.accept(request)
    return request


def test_a_stop_reaches_the_process_that_has_the_request(pair: list[EngineService]) -> None:
    for here, there in (pair, pair[::-1]):
        by_request, by_client = accept(here, "r", ENDLESS), accept(here, "s", ENDLESS, {"owner": "frontend"})
        assert by_request.first.wait(WAIT) and by_client.first.wait(WAIT)
        # The stop is answered when it has been done.
        assert stop(there, "r").wait() == []
        assert by_request.finish() is FinishReason.CANCELLED and not by_client.ended.is_set()
        stop(there, "x", {"owner": "frontend"}).wait()
        assert by_client.finish() is FinishReason.CANCELLED
    # One right behind its request may overtake it.
    early = stop(pair[0], "u")
    late = accept(pair[1], "u", ENDLESS)
    assert early.wait() == [] and late.finish() is FinishReason.CANCELLED
    left = [accept(service, "t", ENDLESS) for service in pair]
    stop(pair[1], "", {"all_requests": True})
    assert [request.finish() for request in left] == [FinishReason.CANCELLED] * 2


def test_streams_of_two_processes_have_different_ids(pair: list[EngineService]) -> None:
    requests = [accept(service, "r", 2) for service in (*pair, pair[1])]
    assert len({response["stream_id"][0][0] for request in requests for response in request.wait()}) == 3


def test_statistics_are_those_of_all_processes_and_one_publishes_them(pair: list[EngineService]) -> None:
    for service in (*pair, pair[0]):
        accept(service, "r", 1).wait()
    for service in pair:
        asking = FakeRequest("probe", 1, stop=True)
        asking.outputs = ["statistics"]
        service.accept(asking)
        ((text,),) = [[response["statistics"] for response in asking.wait()]]
        assert json.loads(text[0][0]) == {"running": 3.0, "running_lora_adapters": []}
    gauge = MetricFamily.made["triton_chat_engine_running"]
    end = time.monotonic() + WAIT
    while gauge.calls[-1] != 3.0 and time.monotonic() < end:
        time.sleep(0.01)
    # Each once: the other process publishes nothing.
    assert gauge.calls == sorted(set(gauge.calls)) and gauge.calls[-1] == 3.0


def test_the_most_requests_are_those_of_all_processes(pair: list[EngineService]) -> None:
    running = [accept(service, "r", ENDLESS) for service in (*pair, pair[1])]
    assert all(request.first.wait(WAIT) for request in running)
    assert all(is_refused(accept(service, "s", 1)) for service in pair)
    accept(pair[0], "r", 1, stop=True).wait()
    for request in running:
        request.wait()
    assert accept(pair[1], "s", 1).finish() is FinishReason.LENGTH


def test_the_end_of_the_first_process_ends_what_runs_in_the_others(pair: list[EngineService]) -> None:
    running = accept(pair[1], "r", ENDLESS)
    assert running.first.wait(WAIT)
    pair[0].close()
    assert running.finish() is FinishReason.CANCELLED
    engine = pair[1]._engine
    assert isinstance(engine, SharedFakeEngine) and engine.is_shut_down and not engine.disconnected.is_set()
    del pair[0]


def test_only_some_engines_can_be_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(services, "build_engine", lambda options: FakeEngine())
    values = {"engine": "fake:Fake", "model_path": str(tmp_path)}
    with pytest.raises(ValueError, match="fake:Fake runs in one process: instance_group must have the count 1"):
        EngineService.from_config(ModelParameters("tensorrt_llm", values, instances=2))
    shared = SharedFakeEngine()
    shared.adapters = object()  # type: ignore[attr-defined]
    monkeypatch.setattr(services, "build_engine", lambda options: shared)
    values |= {"enable_lora": "true", "allowed_lora_path": str(tmp_path)}
    with pytest.raises(ValueError, match="adapters cannot change"):
        EngineService.from_config(ModelParameters("tensorrt_llm", values, instances=2))
