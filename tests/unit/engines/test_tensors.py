# SPDX-License-Identifier: Apache-2.0
"""Every sampling field with extreme values: a generation that both engines take, or a refusal that names the field."""

import math
from errno import EACCES
from typing import Any

import numpy as np
import pytest
import torch
from triton_python_backend_utils import Tensor

from common.errors import RequestError
from common.sampling import ENGINE_PARAMETERS, SAMPLING
from common.shared_bytes import Handle, SharedBytes, take
from engines.engine import Generation
from engines.llmapi.sampling import sampling_params as llmapi_params
from engines.tensors import Inputs, _log_unreadable, read_generations
from engines.vllm.sampling import sampling_params as vllm_params

TYPES = {"INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32}
# As Triton's clients can send them: numbers of the tensor's type.
EXTREMES: dict[str, tuple[float, ...]] = {
    "INT32": (0, 1, -1, -2, 7, 8, 9, 129, 2**31 - 1, -(2**31)),
    "UINT64": (0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1),
    "FP32": (
        *(0.0, -0.0, 1.0, -1.0, 0.1, 0.5, 0.01, 0.0099, 2.0, 2.0000002, 3.0, 10.0, 10.1, 100.0, 1e-5),
        *(1e-20, 1e-40, 1e-45, -1e-45, 1.0000001, 3e38, -3e38, math.inf, -math.inf, math.nan),
    ),
}
# Request parameters are JSON.
PARAMETERS: tuple[Any, ...] = (
    *(0, 1, -1, -5, 5, 20, 2**31, 2**70, -(2**70), 0.5, 1e-50, 1e308, math.inf, -math.inf, math.nan, True),
    *("0", "0.5", "5", "-1", "nan", "inf", "1e999", "x", "", None, [], {}),
)


class Request:
    """A request of a prompt of two ids and at most 8 new ones."""

    def __init__(self, **inputs: Any) -> None:
        required = {"input_lengths": np.array([[2]]), "request_output_len": np.array([[8]])}
        arrays = required | {"input_ids": np.array([[5, 6]])} | inputs
        self._inputs = [Tensor(name, array) for name, array in arrays.items()]

    def inputs(self) -> list[Any]:
        return self._inputs


def generation(parameters: dict[str, Any], **inputs: Any) -> Generation:
    ((_, _, read),) = read_generations(Inputs(Request(**inputs)), parameters)  # type: ignore[arg-type] # a fake
    return read


def check_engines(parameters: dict[str, Any], param: str, **inputs: Any) -> bool:
    """Whether both engines take the value; a refusal is the client's fault and names the field."""
    try:
        read = generation(parameters, **inputs)
    except RequestError as error:
        assert (error.kind, error.param) == ("invalid_request", param), error
        return False
    vllm_params(read, {})
    if read.prompt_logprobs is None and not read.priority and read.thinking_token_budget is None:
        llmapi_params(read, {}, penalising=True)
    return True


@pytest.mark.parametrize("value", ["", "x", "[1.5]", "[true]", "[-1]", "{}", "1", f"[{2**31}]", "[" * 100_000])
def test_lists_of_token_ids_that_are_none(value: str) -> None:
    with pytest.raises(RequestError, match="must be a JSON array of token ids") as raised:
        generation({"allowed_token_ids": value})
    assert raised.value.param == "allowed_token_ids"


def test_lists_of_token_ids() -> None:
    assert generation({"allowed_token_ids": "[5, 3]", "cache_salt": "x"}).allowed_token_ids == (5, 3)


TENSORS = [
    (name, one.engine_input, one.datatype, value)
    for name, one in SAMPLING.items()
    if one.datatype is not None
    for value in EXTREMES[one.datatype]
]


@pytest.mark.parametrize(("field", "name", "datatype", "value"), TENSORS)
def test_extreme_values_of_a_tensor(field: str, name: str, datatype: str, value: float) -> None:
    array = np.array([[value]], TYPES[datatype])
    limits = SAMPLING[field].limits
    high = min(limits.high, 8) if field == "min_tokens" else limits.high
    taken = check_engines({}, field, **{name: array})
    # The limits too are as the tensor's type has them: 0.01 is inside, which FP32 rounds to a little less.
    if datatype == "FP32":
        low, high = (float(np.float32(limit)) for limit in (limits.low, high))
        assert taken == (low <= array.item() <= high)
    else:
        assert taken == (limits.low <= array.item() <= high)


@pytest.mark.parametrize("name", [name for name, one in ENGINE_PARAMETERS.items() if one.limits is not None])
@pytest.mark.parametrize("value", PARAMETERS, ids=repr)
def test_extreme_values_of_a_parameter(name: str, value: Any) -> None:
    one = ENGINE_PARAMETERS[name]
    assert one.limits is not None
    try:
        allowed = one.limits.low <= one.kind(value) <= one.limits.high
    except (TypeError, ValueError, OverflowError):
        allowed = False
    assert check_engines({name: value}, name, return_log_probs=np.array([[True]])) == allowed


@pytest.mark.parametrize(
    ("param", "inputs"),
    [
        ("num_return_sequences", {"num_return_sequences": np.array([[0]])}),
        ("beam_width", {"beam_width": np.array([[0]])}),
        ("input_lengths", {"input_lengths": np.array([[3]])}),
        ("input_ids", {"input_ids": np.array([[5, -1]])}),
        ("max_tokens", {"request_output_len": np.array([[0]])}),
        ("logit_bias", {"embedding_bias": np.array([[0.0, math.nan]], np.float32)}),
    ],
)
def test_other_inputs_beyond_their_limits(param: str, inputs: dict[str, Any]) -> None:
    assert not check_engines({}, param, **inputs)


def test_seeds_of_further_sequences_wrap_around() -> None:
    request = Request(seed=np.array([[2**64 - 1]], np.uint64), num_return_sequences=np.array([[2]]))
    seeds = [read.seed for _, _, read in read_generations(Inputs(request), {})]  # type: ignore[arg-type] # a fake
    assert seeds == [2**64 - 1, 0]
    assert vllm_params(Generation([1], 8, seed=2**64 - 1), {}).seed == 2**63 - 1


def test_a_top_p_that_rounds_to_0_asks_for_the_likeliest_token() -> None:
    read = generation({}, runtime_top_p=np.array([[1e-50]], np.float32))
    assert (read.top_p, read.top_k) == (1.0, 1)


def test_each_row_has_its_own_guide() -> None:
    batch = {"input_ids": np.array([[5, 6], [7, 8]]), "guided_decoding_guide_type": [[b"regex"], [b"regex"]]}
    guides = {"guided_decoding_guide": [[b"a"], [b"b"]]}
    request = Request(
        **{name: np.array(value, object) for name, value in guides.items()},
        guided_decoding_guide_type=np.array(batch["guided_decoding_guide_type"], object),
        input_ids=batch["input_ids"],
        input_lengths=np.array([[2], [2]]),
        request_output_len=np.array([[8], [8]]),
    )
    read = list(read_generations(Inputs(request), {}))  # type: ignore[arg-type] # a fake
    assert [one.guide for _, _, one in read] == ["a", "b"]


def test_features_of_pictures_are_copied_from_the_request() -> None:
    given = np.arange(9, dtype=np.uint8)[np.newaxis]
    features = generation({}, multimodal=given).multimodal
    given += 1
    assert features is not None and features.take().tolist() == list(range(9))
    assert generation({}).multimodal is None


def test_features_in_shared_memory_are_taken_before_a_request_can_be_refused() -> None:
    def handle(shared: SharedBytes) -> Handle:
        given = shared.share([memoryview(bytes(range(9)))])
        assert given is not None
        return given

    def inputs(of: Handle, **more: Any) -> Inputs:
        return Inputs(Request(multimodal_memory=np.array([of]), **more))  # type: ignore[arg-type] # a fake

    shared = SharedBytes()
    first, second = read_generations(inputs(handle(shared), num_return_sequences=np.array([[2]])), {})
    for _, _, one in (first, second):
        assert one.multimodal is not None and one.multimodal.take().tolist() == list(range(9))
    refused = handle(shared)
    with pytest.raises(RequestError, match="beam_width"):
        list(read_generations(inputs(refused, beam_width=np.array([[2]])), {}))
    for gone in (refused, refused._replace(key=1), refused._replace(process=1)):
        with pytest.raises(RequestError, match="has gone") as error:
            list(read_generations(inputs(gone), {}))
        assert error.value.kind == "unavailable"


def test_without_the_shared_memory_the_tensor_is_used(caplog: pytest.LogCaptureFixture) -> None:
    shared, expected = SharedBytes(), list(range(9))
    _log_unreadable.cache_clear()
    for denied in (False, True, True):
        handle = shared.share([memoryview(bytes(expected))])
        assert handle is not None
        with pytest.MonkeyPatch.context() as patched:
            if denied:
                patched.setattr("common.shared_bytes._Mapping", deny)
            given = generation(
                {}, multimodal=np.arange(9, dtype=np.uint8)[np.newaxis], multimodal_memory=np.array([handle])
            )
        assert given.multimodal is not None and given.multimodal.take().tolist() == expected
        # What was there to be taken is not left.
        with pytest.raises(LookupError):
            take(handle)
    assert caplog.text.count("EACCES") == 1


def deny(*_: object) -> None:
    raise PermissionError(EACCES, "no")


def test_nothing_is_copied_before_the_check_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(count: int) -> None:
        asked.append(count)
        raise RequestError("full", kind="unavailable")

    asked: list[int] = []
    shared = SharedBytes()
    handle = shared.share([memoryview(bytes(9))])
    assert handle is not None
    rows = {name: np.zeros((1, 4, 4), np.float32) for name in ("prompt_embedding_table", "images")}
    inputs = Inputs(Request(num_return_sequences=np.array([[3]]), multimodal_memory=np.array([handle]), **rows))  # type: ignore[arg-type] # a fake
    monkeypatch.setattr(torch.Tensor, "clone", lambda _: pytest.fail("a copy"))
    with pytest.raises(RequestError, match="full"):
        list(read_generations(inputs, {}, check_room=refuse))
    assert asked == [3]
    # The shared memory is free again.
    with pytest.raises(LookupError):
        take(handle)


def test_the_sequences_of_a_row_share_its_tensors() -> None:
    table = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    inputs = Inputs(Request(num_return_sequences=np.array([[2]]), prompt_embedding_table=table))  # type: ignore[arg-type] # a fake
    first, second = (one for _, _, one in read_generations(inputs, {}))
    table += 1
    assert first.prompt_table is not None and first.prompt_table is second.prompt_table
    assert first.prompt_table.flatten().tolist() == list(range(8))


@pytest.mark.parametrize(("ids", "fits"), [([0, 7], True), ([0, 7, 0], True), ([0], False), ([], False)])
def test_extra_ids_are_one_for_each_id(ids: list[int], fits: bool) -> None:
    given = np.array([ids], np.uint64)
    if fits:
        assert generation({}, prompt_table_extra_ids=given).prompt_extra_ids == [0, 7]
        return
    with pytest.raises(RequestError, match="prompt_table_extra_ids must have one for each of the 2 ids") as refused:
        generation({}, prompt_table_extra_ids=given)
    assert refused.value.param == "prompt_table_extra_ids"
