# SPDX-License-Identifier: Apache-2.0
"""The service of the model `embedding` on a fake engine: every request is answered once, whatever becomes of it."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from triton_python_backend_utils import InferenceResponse, MetricFamily, Tensor

from common.errors import RequestError
from common.versions import Versions
from engines import embedding_service
from engines.embedding_service import EmbeddingService
from engines.pooling import Pooled, PoolingRequest
from python_backend.api import FINAL

WAIT = 30.0
OUTPUTS = ("embedding", "score", "num_input_tokens", "build_info")


class FakeEngine:
    """Embeds a prompt as its length. It refuses "refuse", fails at "fail", and never ends with "wait"."""

    max_model_len = 512

    def __init__(self) -> None:
        self.asked: list[PoolingRequest] = []
        self.cancelled = threading.Event()
        self.is_shut_down = False

    async def start(self) -> None: ...

    async def pool(self, request: PoolingRequest) -> Pooled:
        self.asked.append(request)
        if "refuse" in request.prompts:
            raise RequestError("too long", kind="context_length", param="text_input")
        if "fail" in request.prompts:
            raise ZeroDivisionError
        if "wait" in request.prompts:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        lengths = [len(prompt) for prompt in request.pairs or request.prompts]
        numbers = np.array(lengths, np.float32)
        if request.pairs is not None:
            return Pooled(num_input_tokens=lengths, scores=numbers)
        return Pooled(num_input_tokens=lengths, embeddings=numbers[:, None])

    def statistics(self) -> Mapping[str, float]:
        return {"running": 1.0}

    def shutdown(self) -> None:
        self.is_shut_down = True


class FakeRequest:
    """A request and, as Triton's sender, its response. inputs: texts or numbers by name."""

    def __init__(self, outputs: tuple[str, ...] = OUTPUTS, **inputs: Any) -> None:
        self._inputs = [Tensor(name, _array(value)) for name, value in inputs.items()]
        self._outputs = set(outputs)
        self.given: dict[str, Any] = {}
        self.response: InferenceResponse | None = None
        self.ended, self.cancelled = threading.Event(), False

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return "id"

    def parameters(self) -> str:
        return json.dumps(self.given) if self.given else ""

    def requested_output_names(self) -> set[str]:
        return self._outputs

    def get_response_sender(self) -> "FakeRequest":
        return self

    def send(self, response: InferenceResponse, flags: int = 0) -> None:
        assert flags == FINAL and not self.ended.is_set(), "one response for each request"
        self.response = response
        self.ended.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def answer(self) -> dict[str, Any]:
        assert self.ended.wait(WAIT)
        assert self.response is not None and self.response.error is None, self.response.error.message()
        return {tensor.name(): tensor.as_numpy() for tensor in self.response.output_tensors}

    def error(self) -> RequestError:
        assert self.ended.wait(WAIT)
        assert self.response is not None and self.response.error is not None
        decoded = RequestError.decode(self.response.error.message())
        assert decoded is not None
        return decoded


def _array(value: Any) -> np.ndarray[Any, Any]:
    values = value if isinstance(value, list) else [value]
    if all(isinstance(one, str) for one in values):
        return np.array([one.encode() for one in values], dtype=object)
    return np.array(values, np.int32)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def service(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingService]:
    monkeypatch.setattr(embedding_service, "CANCEL_PERIOD_S", 0.01)
    made = EmbeddingService(engine, "bge", max_requests=2, max_inputs=3, versions=Versions(engine="vllm"))
    made.start()
    yield made
    made.close()
    assert engine.is_shut_down


def ask(service: EmbeddingService, **inputs: Any) -> FakeRequest:
    request = FakeRequest(**inputs)
    service.accept(request)
    return request


def test_texts_ids_and_pairs(service: EmbeddingService, engine: FakeEngine) -> None:
    texts = ask(service, text_input=["a", "bcd"]).answer()
    assert texts["embedding"].tolist() == [[1], [3]] and texts["num_input_tokens"].tolist() == [1, 3]
    ids = ask(service, input_ids=[5, 6, 7], input_lengths=[1, 2], dimensions=2, truncate_prompt_tokens=-1).answer()
    assert ids["embedding"].tolist() == [[1], [2]]
    assert engine.asked[-1] == PoolingRequest(
        prompts=[[5], [6, 7]], dimensions=2, truncate_prompt_tokens=-1, request_id="id"
    )
    assert ask(service, input_ids=[5, 6]).answer()["embedding"].tolist() == [[2]], "one prompt needs no lengths"
    pairs = ask(service, text_input="q", text_pair=["a", "bc"]).answer()
    assert pairs["score"].tolist() == [1, 2] and "embedding" not in pairs


def test_only_what_was_asked_for_is_sent(service: EmbeddingService) -> None:
    assert set(ask(service, text_input="a", outputs=("embedding",)).answer()) == {"embedding"}


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({}, "text_input"),
        ({"text_input": "a", "input_ids": [1]}, "text_input"),
        ({"text_input": []}, "text_input"),
        ({"text_input": list("abcd")}, "text_input"),
        ({"input_ids": [1, 2], "input_lengths": [1]}, "input_ids"),
        ({"input_ids": [1, 2], "input_lengths": [2, 0]}, "input_ids"),
        ({"input_ids": [1, 2], "input_lengths": [3, -1]}, "input_ids"),
        ({"text_input": ["a", "b"], "text_pair": ["c", "d", "e"]}, "text_pair"),
        ({"text_input": "a", "text_pair": list("bcde")}, "text_pair"),
        ({"text_input": "a", "dimensions": 0}, "dimensions"),
        ({"text_input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"text_input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ],
)
def test_a_wrong_request_names_its_input(service: EmbeddingService, inputs: dict[str, Any], param: str) -> None:
    error = ask(service, **inputs).error()
    assert (error.kind, error.param) == ("invalid_request", param)


def test_text_that_is_not_utf8(service: EmbeddingService) -> None:
    request = FakeRequest()
    request._inputs = [Tensor("text_input", np.array([b"\xff"], dtype=object))]
    service.accept(request)
    assert request.error().param == "text_input"


def test_refusals_and_failures_of_the_engine(service: EmbeddingService) -> None:
    refused = ask(service, text_input="refuse").error()
    assert (refused.kind, refused.param) == ("context_length", "text_input")
    assert ask(service, text_input="fail").error().kind == "internal"
    assert ask(service, text_input="a").answer()["embedding"].tolist() == [[1]]


def test_a_client_that_has_left_cancels_its_request(service: EmbeddingService, engine: FakeEngine) -> None:
    request = ask(service, text_input="wait")
    request.cancelled = True
    assert request.error().kind == "cancelled" and engine.cancelled.is_set()


def test_the_launcher_cancels_what_its_grace_time_leaves(service: EmbeddingService) -> None:
    waiting = [ask(service, text_input="wait") for _ in range(2)]
    request = FakeRequest(outputs=("build_info",), dimensions=1)
    request.given = {"all_requests": True}
    service.accept(request)
    assert request.answer() and [one.error().kind for one in waiting] == ["cancelled"] * 2
    assert ask(service, text_input="a").answer()["embedding"].tolist() == [[1]]


def test_more_requests_than_allowed_are_refused(service: EmbeddingService) -> None:
    waiting = [ask(service, text_input="wait") for _ in range(2)]
    assert ask(service, text_input="a").error().kind == "unavailable"
    versions = ask(service, dimensions=1, outputs=("build_info",)).answer()["build_info"]
    assert json.loads(versions.item())["engine"] == "vllm", "a probe needs no room"
    told = ask(service, dimensions=1, outputs=("statistics",)).answer()["statistics"]
    assert json.loads(told.item()) == {"running": 1.0, "max_model_len": 512}
    for request in waiting:
        request.cancelled = True
        request.error()
    assert ask(service, text_input="a").answer()["embedding"].tolist() == [[1]]


@pytest.mark.parametrize("fault", [ZeroDivisionError("no numbers"), RequestError("not now", kind="unavailable")])
def test_a_question_that_fails_is_answered(service: EmbeddingService, engine: FakeEngine, fault: Exception) -> None:
    """Triton waits for the end of every request."""

    def fail() -> Any:
        raise fault

    engine.statistics = fail  # type: ignore[method-assign]
    told = ask(service, dimensions=1, outputs=("statistics",)).error()
    assert told.kind == (fault.kind if isinstance(fault, RequestError) else "internal")


def test_what_is_running_at_the_end_is_answered(engine: FakeEngine) -> None:
    service = EmbeddingService(engine)
    service.start()
    running = ask(service, text_input="wait")
    service.close()
    assert running.error().kind == "cancelled"


def test_metrics_have_the_models_name(service: EmbeddingService) -> None:
    ask(service, text_input="a").answer()
    assert MetricFamily.made["triton_chat_engine_running"].labels == {"model": "bge"}
