# SPDX-License-Identifier: Apache-2.0
"""Every request that a model accepts ends exactly once. One that does not is never released, and blocks the shutdown."""

import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from tests.soak.gauges import wait_at_rest
from tests.support.scripted import ScriptedStack
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.python_engine("a failure inside an ensemble leaks its request with the C++ backend")

LENGTHS = {"input_lengths": np.int32([[2]]), "request_output_len": np.int32([[4]])}
IDS = {"input_ids": np.int32([[5, 6]])} | LENGTHS
# Model, inputs, parameters: right and wrong ones, answered by one response, by many, by none or by an error.
REQUESTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("preprocessing", {"text_input": b"Hi"}, {}),
    ("preprocessing", {"text_input": b"Hi"}, {"return_token_strs": True}),
    ("preprocessing", {"messages": b"{"}, {}),
    ("preprocessing", {"text_input": b"\xff"}, {}),
    ("preprocessing", {"text_input": b"Hi"}, {"stop": "no json"}),
    ("preprocessing", {}, {}),
    ("vit", {"input_lengths": np.int32([[2]])}, {}),
    ("vit", {"tiles": np.zeros((1, 1, 8, 8, 3), np.uint8)}, {}),
    ("postprocessing", {"output_ids": np.int32([[[5, 6]]]), "engine_finish_reason": np.int32([[3]])}, {}),
    ("postprocessing", {"output_ids": np.int32([[[5, 6]]]), "engine_finish_reason": np.int32([[99]])}, {}),
    ("postprocessing", {"output_ids": np.int32([[[-1]]]), "engine_finish_reason": np.int32([[3]])}, {}),
    ("tensorrt_llm", IDS, {}),
    ("tensorrt_llm", IDS | {"streaming": np.array([[True]])}, {}),
    ("tensorrt_llm", IDS | {"num_return_sequences": np.int32([[3]])}, {}),
    *(("tensorrt_llm", IDS | {"num_return_sequences": np.int32([[count]])}, {}) for count in (0, -1, 10**6)),
    *(("tensorrt_llm", IDS | {"beam_width": np.int32([[width]])}, {}) for width in (0, 2)),
    *(("tensorrt_llm", IDS | {"request_output_len": np.int32([[count]])}, {}) for count in (0, -1)),
    ("tensorrt_llm", IDS | {"input_lengths": np.int32([[9]])}, {}),
    ("tensorrt_llm", IDS | {"temperature": np.float32([[np.nan]])}, {}),
    ("tensorrt_llm", IDS, {"min_p": "high"}),
    ("tensorrt_llm", IDS | {"temperature": np.float32([[-1]])}, {"error_output": True}),
    ("tensorrt_llm", LENGTHS, {}),
    ("tensorrt_llm", LENGTHS | {"stop": np.array([[True]])}, {}),
    ("ensemble", {"text_input": b"Hi"}, {}),
    ("ensemble", {"text_input": b"Hi", "stream": np.array([[True]])}, {}),
    ("ensemble", {"text_input": b"Hi", "stream": np.array([[True]])}, {"stop": '["b"]'}),
    ("ensemble", {"text_input": b"Hi", "num_return_sequences": np.int32([[2]])}, {}),
    ("ensemble", {"text_input": b"fail"}, {"error_output": True}),
    ("ensemble", {"text_input": b"fail", "stream": np.array([[True]])}, {"error_output": True}),
    ("ensemble", {"text_input": b"Hi", "beam_width": np.int32([[2]])}, {"error_output": True}),
    ("ensemble", {"text_input": b"Hi", "max_tokens": np.int32([[0]])}, {}),
    ("ensemble", {"messages": b"[]"}, {}),
    ("ensemble", {}, {}),
]


def request(model: str, inputs: dict[str, Any], parameters: dict[str, Any], request_id: str) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    for name, value in inputs.items():
        array = np.array([[value]], object) if isinstance(value, bytes) else value
        message.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        packed = serialize_byte_tensor(array).item() if array.dtype == object else array.tobytes()
        message.raw_input_contents.append(packed)
    # Without it, a request that ends with no response would end unseen.
    for name, value in (parameters | {"triton_enable_empty_final_response": True}).items():
        field = "bool_param" if isinstance(value, bool) else "string_param"
        setattr(message.parameters[name], field, value)
    return message


def ends(scripted: ScriptedStack, sent: Sequence[pb.ModelInferRequest]) -> Counter[str]:
    """Send the requests on one stream; returns how often each ended. Triton ends a stream after its last request."""
    found: Counter[str] = Counter()
    with grpc.insecure_channel(scripted.stack.grpc_url) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        for response in stub.ModelStreamInfer(iter(sent), timeout=PATIENCE_S):
            answer = response.infer_response
            assert answer.id, response
            if response.error_message or answer.parameters["triton_final_response"].bool_param:
                found[answer.id] += 1
    return found


@pytest.fixture
def scripted(scripted_qwen3: ScriptedStack) -> Iterator[ScriptedStack]:
    rules = [
        {"contains": "fail", "text": "a b c", "error_after": 1},
        {"contains": "endless", "text": "a", "repeat": True},
    ]
    scripted_qwen3.play(*rules, {"text": "a b c"})
    yield scripted_qwen3
    wait_at_rest(scripted_qwen3.stack, PATIENCE_S)


def test_once(scripted: ScriptedStack) -> None:
    sent = [request(*each, uuid.uuid4().hex) for each in REQUESTS]
    found = ends(scripted, sent)
    counts = {f"{one.model_name} {number}": found[one.id] for number, one in enumerate(sent)}
    assert counts == dict.fromkeys(counts, 1)


def test_a_stopped_request_and_its_stop_end_once_each(scripted: ScriptedStack) -> None:
    inputs = {"text_input": b"endless", "stream": np.array([[True]]), "max_tokens": np.int32([[30_000]])}
    running, stop = uuid.uuid4().hex, LENGTHS | {"stop": np.array([[True]])}
    found: Counter[str] = Counter()
    began = threading.Event()

    def sent() -> Iterator[pb.ModelInferRequest]:
        yield request("ensemble", inputs, {}, running)
        assert began.wait(PATIENCE_S)
        yield request("tensorrt_llm", stop, {}, running)

    with grpc.insecure_channel(scripted.stack.grpc_url) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        for response in stub.ModelStreamInfer(sent(), timeout=PATIENCE_S):
            assert not response.error_message
            began.set()
            if response.infer_response.parameters["triton_final_response"].bool_param:
                found[response.infer_response.model_name] += 1
    assert found == {"ensemble": 1, "tensorrt_llm": 1}


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm"])
def test_of_a_client_that_leaves_nothing_is_left(scripted: ScriptedStack, model: str) -> None:
    ids = {"input_ids": np.int32([[5, 6]]), "input_lengths": np.int32([[2]]), "request_output_len": np.int32([[5]])}
    text = {"text_input": b"endless", "max_tokens": np.int32([[200]])}
    inputs = (text if model == "ensemble" else ids) | {
        "stream" if model == "ensemble" else "streaming": np.array([[True]])
    }
    with grpc.insecure_channel(scripted.stack.grpc_url) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        responses = stub.ModelStreamInfer(iter([request(model, inputs, {}, uuid.uuid4().hex)]), timeout=PATIENCE_S)
        next(responses)
        responses.cancel()
