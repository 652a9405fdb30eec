# SPDX-License-Identifier: Apache-2.0
"""`tritonclient` with the ensemble and with `tensorrt_llm`, and Triton's HTTP generate_stream."""

import asyncio
import json
import uuid

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
from transformers import AutoTokenizer
from tritonclient.utils import InferenceServerException

from common.errors import RequestError
from tests.support.triton_requests import infer, tensor, text_of
from tests.support.waiting import PATIENCE_S

FRANCE = [{"role": "user", "content": "Please name the capital of France."}]


async def test_text_input_on_the_ensemble(stack):
    inputs = [
        tensor("text_input", b"The capital of France is", object),
        tensor("max_tokens", 4, np.int32),
        tensor("temperature", 0.0, np.float32),
        tensor("stream", True, bool),
        tensor("return_num_input_tokens", True, bool),
    ]
    responses = await infer(stack, "ensemble", inputs)
    assert text_of(responses).startswith(" Paris")
    assert [("finish_reason" in r) for r in responses] == [False] * (len(responses) - 1) + [True]
    last = responses[-1]
    assert last["finish_reason"].item() == b"length"
    assert last["completion_tokens"].item() == 4
    assert responses[0]["num_input_tokens"].item() == 5


async def test_messages_on_the_ensemble_whole(stack):
    inputs = [
        tensor("messages", json.dumps({"messages": FRANCE}).encode(), object),
        tensor("temperature", 0.0, np.float32),
    ]
    responses = await infer(stack, "ensemble", inputs, {"chat": True})
    assert len(responses) == 1, "without `stream` the answer is one response"
    assert "Paris" in text_of(responses) and responses[0]["finish_reason"].item() == b"stop"


async def test_stop_strings_as_a_request_parameter(stack):
    inputs = [
        tensor("messages", json.dumps({"messages": FRANCE}).encode(), object),
        tensor("temperature", 0.0, np.float32),
        tensor("stream", True, bool),
    ]
    responses = await infer(stack, "ensemble", inputs, {"stop": '["of Fra"]'})
    assert text_of(responses) == "The capital "


@pytest.mark.python_engine("stream_id is an extension; such an id is refused (test_trtllm)")
async def test_equal_request_ids_do_not_mix(stack):
    """Each worker of perf_analyzer numbers its requests from zero."""

    async def ask(country: str) -> str:
        prompt = json.dumps({"messages": [{"role": "user", "content": f"Please name the capital of {country}."}]})
        inputs = [
            tensor("messages", prompt.encode(), object),
            tensor("temperature", 0.0, np.float32),
            tensor("stream", True, bool),
        ]
        return text_of(await infer(stack, "ensemble", inputs, request_id="0"))

    countries = ["France", "Italy", "Japan", "Egypt"]
    alone = [await ask(country) for country in countries]
    together = await asyncio.gather(*[ask(country) for country in countries])
    for country, answer, other in zip(countries, alone, together, strict=True):
        assert country in answer and country in other


@pytest.mark.python_engine("finish_reason is an extension (test_trtllm has the backend's own ends)")
async def test_ids_on_tensorrt_llm(stack, smollm2_dir):
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    ids = tokenizer.apply_chat_template(FRANCE, add_generation_prompt=True, return_dict=False)
    inputs = [
        tensor("input_ids", ids, np.int32),
        tensor("input_lengths", len(ids), np.int32),
        tensor("request_output_len", 30, np.int32),
        tensor("end_id", 2, np.int32),
        tensor("temperature", 0.0, np.float32),
        tensor("streaming", True, bool),
        tensor("return_log_probs", True, bool),
    ]
    responses = await infer(stack, "tensorrt_llm", inputs)
    output = [token for r in responses for token in r["output_ids"].flatten().tolist()]
    assert "Paris" in tokenizer.decode(output)
    assert output[-1] == 2 and responses[-1]["finish_reason"].item() == 1
    assert responses[-1]["sequence_length"].item() == len(output)
    assert all(r["output_log_probs"].shape == r["output_ids"].shape for r in responses)


@pytest.mark.python_engine("the C++ backend has limits of its own")
@pytest.mark.parametrize(
    ("name", "value", "dtype", "param"),
    [
        ("num_return_sequences", 0, np.int32, "num_return_sequences"),
        ("num_return_sequences", -1, np.int32, "num_return_sequences"),
        ("temperature", -1.0, np.float32, "temperature"),
        ("temperature", float("nan"), np.float32, "temperature"),
        ("min_tokens", 9, np.int32, "min_tokens"),
        ("min_p", "5", None, "min_p"),
        ("prompt_logprobs", -5, None, "prompt_logprobs"),
    ],
)
async def test_values_beyond_their_limits_on_tensorrt_llm(stack, name, value, dtype, param):
    inputs = [
        tensor("input_ids", [504, 3575, 282], np.int32),
        tensor("input_lengths", 3, np.int32),
        tensor("request_output_len", 4, np.int32),
    ]
    parameters = {} if dtype else {name: value}
    with pytest.raises(InferenceServerException) as refused:
        await infer(stack, "tensorrt_llm", [*inputs, *([tensor(name, value, dtype)] if dtype else [])], parameters)
    error = RequestError.decode(str(refused.value))
    assert error is not None and (error.kind, error.param) == ("invalid_request", param)


@pytest.mark.parametrize("running", [True, False], ids=["mid-stream", "at-once"])
async def test_stop_by_request_id(stack, running):
    """Cancel as the contract says: another request with the same id and `stop`."""
    request_id, done = uuid.uuid4().hex, asyncio.Event()
    scalars = [tensor("input_lengths", 3, np.int32), tensor("request_output_len", 3000, np.int32)]
    started = [tensor("input_ids", [504, 3575, 282], np.int32), *scalars, tensor("streaming", True, bool)]
    stopping = [*scalars, tensor("stop", True, bool)]
    first = asyncio.Event()

    async def requests():
        yield {"model_name": "tensorrt_llm", "inputs": started, "request_id": request_id}
        if running:
            await first.wait()
        # Its answer holds nothing, and Triton sends an empty last response only to clients that ask for one.
        yield {"model_name": "tensorrt_llm", "inputs": stopping, "request_id": request_id}
        await done.wait()

    async with grpc.InferenceServerClient(stack.grpc_url) as client, asyncio.timeout(PATIENCE_S):
        count = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None
            count += 1
            first.set()
            if result.get_response().parameters["triton_final_response"].bool_param:
                finish = result.as_numpy("finish_reason")
                break
        done.set()
    # The C++ backend ends the running request as well, and says no more.
    assert finish is None if stack.engine is not None else finish.item() == 5, "the running request ends as cancelled"
    assert count < 2000


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([("max_tokens", 5, np.int32)], "text_input"),
        ([("messages", b"{not json", object)], "JSON"),
        ([("text_input", b"\xff\xfe", object)], "UTF-8"),
        ([("input_ids", 999999, np.int32)], "token id 999999"),
        ([("text_input", b"hello", object), ("max_tokens", 0, np.int32)], "max_tokens"),
    ],
)
async def test_a_wrong_request_says_why(stack, inputs, words):
    with pytest.raises(Exception, match=words):
        await infer(stack, "ensemble", [tensor(*each) for each in inputs])


@pytest.mark.python_engine("the output error is an extension")
async def test_an_engine_refusal_as_an_output(stack):
    """The frontend requests it, as an error inside an ensemble would leak its request in Triton."""
    inputs = [tensor("text_input", b"hello", object), tensor("beam_width", 4, np.int32)]
    [response] = await infer(stack, "ensemble", inputs, {"error_output": True})
    assert b"beam search" in response["error"].item()


def test_triton_http_generate_stream(stack):
    body = {"text_input": "The capital of France is", "max_tokens": 4, "temperature": 0.0, "stream": True}
    url = f"{stack.triton_http_url}/v2/models/ensemble/generate_stream"
    with httpx.stream("POST", url, json=body, timeout=PATIENCE_S) as response:
        assert response.status_code == 200
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert "".join(event["text_output"] for event in events).startswith(" Paris")
