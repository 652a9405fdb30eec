# SPDX-License-Identifier: Apache-2.0
"""Encodes requests to Triton's models and decodes their responses; no other module names the tensors.

The models are called by their names in Triton (common.model_names); the defaults are those of one model alone.

Tensors have a leading batch dimension of 1. Their values are raw bytes, little endian; a string is its length as uint32
followed by its UTF-8.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

import orjson
from tritonclient.grpc import service_pb2 as pb

from common.adapters import ADAPTERS, SEND_WEIGHTS, Adapter
from common.adapters import from_json as read_adapters
from common.answer_delta import OUTPUTS, AnswerDelta, Encoding
from common.engine_statistics import STATISTICS
from common.errors import RequestError
from common.finish_reason import FinishReason
from common.model_names import ENGINE, ENSEMBLE, POSTPROCESSING, PREPROCESSING, role
from common.response_batch import ANSWERS, FORGET_BEFORE, GROUP, AnswerRow, decode_rows
from common.sampling import ENGINE_PARAMETERS, SAMPLING, Datatype, SamplingFields
from common.versions import BUILD_INFO, Versions

Parameter = str | int | bool
_FORMATS: dict[Datatype, str] = {"INT32": "i", "UINT64": "Q", "FP32": "f", "BOOL": "?"}

# OpenAI's defaults. A Python engine takes those of the checkpoint's generation config instead, as `vllm serve` does;
# the C++ backend knows no generation config, and without them it would decode greedily.
_DEFAULT_TEMPERATURE = _DEFAULT_TOP_P = 1.0

# Only the config of TensorRT-LLM's C++ backend has this parameter. A Python model with it is a double of that backend.
CPP_PARAMETER = "gpt_model_path"


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the ensemble.

    asked_by: the OpenAI field that sets it, which errors name. default: the value of the field of EnsembleRequest that
    an ensemble without this input honours.
    """

    datatype: Datatype
    asked_by: str
    default: Any


def _input(datatype: Datatype, asked_by: str, default: Any = None) -> Any:
    return field(default=default, metadata={"input": Input(datatype, asked_by, default)})


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleRequest(SamplingFields):
    """One request to the ensemble. A field is the input of its name; None and () are not sent.

    parameters: Triton request parameters.
    """

    text_input: str | None = _input("BYTES", "prompt")
    messages: bytes | None = _input("BYTES", "messages")
    input_ids: tuple[int, ...] = _input("INT32", "prompt", ())
    images: tuple[bytes, ...] = _input("BYTES", "messages", ())
    max_tokens: int | None = _input("INT32", "max_tokens")
    bad_words: tuple[str, ...] = _input("BYTES", "bad_words", ())
    stop_token_ids: tuple[int, ...] = _input("INT32", "stop_token_ids", ())
    logit_bias_ids: tuple[int, ...] = _input("INT32", "logit_bias", ())
    logit_bias_values: tuple[float, ...] = _input("FP32", "logit_bias", ())
    end_id: int | None = _input("INT32", "ignore_eos")
    lora_task_id: int | None = _input("UINT64", "model")
    return_log_probs: bool | None = _input("BOOL", "logprobs")
    guided_decoding_guide_type: str | None = _input("BYTES", "structured_outputs")
    guided_decoding_guide: str | None = _input("BYTES", "structured_outputs")
    stream: bool = _input("BOOL", "stream", False)
    return_num_input_tokens: bool = _input("BOOL", "usage", True)
    exclude_input_in_output: bool = _input("BOOL", "usage", True)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Datatype, tuple[Any, ...]]]:
        """Yield the name, datatype and values of each tensor to send."""
        for name, datatype, value in zip(INPUTS, _DATATYPES, _input_values(self), strict=True):
            if value is not None and value != ():
                yield name, datatype, value if isinstance(value, tuple) else (value,)

    def request_parameters(self) -> Mapping[str, Parameter]:
        """Return `parameters` and the sampling fields that have no tensor."""
        given = {name: write(getattr(self, name)) for name, write in _PARAMETERS if getattr(self, name) is not None}
        return {**self.parameters, **given} if given else self.parameters


INPUTS: dict[str, Input] = {
    one.name: one.metadata["input"] for one in fields(EnsembleRequest) if "input" in one.metadata
} | {name: Input(one.datatype, name, None) for name, one in SAMPLING.items() if one.datatype is not None}

_DATATYPES = tuple(one.datatype for one in INPUTS.values())
_input_values = attrgetter(*INPUTS)
# Sampling field -> its value as a request parameter: fractions are texts.
_PARAMETERS: tuple[tuple[str, Callable[[Any], Parameter]], ...] = tuple(
    (name, int if one.kind is int else lambda value: repr(float(value)))
    for name, one in SAMPLING.items()
    if one.datatype is None
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the loaded models support.

    inputs: of the ensemble. python_engine: the engine reads request parameters. tells_statistics: it has that output.
    tells_adapters: the engine tells its LoRA adapters, or `preprocessing` those of NVIDIA's C++ backend.
    batches: one response may hold tokens of several requests.
    """

    inputs: frozenset[str]
    python_engine: bool
    tells_statistics: bool = False
    tells_adapters: bool = False
    batches: bool = False

    def check(self, request: EnsembleRequest) -> None:
        """Raise RequestError naming an OpenAI field that no model would read."""
        for name, one in INPUTS.items():
            if name not in self.inputs and getattr(request, name) != one.default:
                self._refuse(one.asked_by)
        if self.python_engine:
            return
        given = request.request_parameters()
        for name, parameter in ENGINE_PARAMETERS.items():
            if name in given and parameter.asked_by is not None:
                self._refuse(parameter.asked_by)

    @staticmethod
    def _refuse(param: str) -> None:
        raise RequestError(f"'{param}' is not supported by the engine behind this server", param=param)


@dataclass(slots=True)
class Delta(AnswerDelta):
    """The addition of one or more responses to one choice. final: Triton flagged the response as the last."""

    final: bool = False


def encode_request(
    request: EnsembleRequest,
    request_id: str,
    capabilities: Capabilities,
    client_id: str | None = None,
    ensemble: str = ENSEMBLE,
) -> pb.ModelInferRequest:
    """Encode a request, without inputs that the ensemble does not declare. client_id: `Settings.owner`."""
    message = pb.ModelInferRequest(model_name=ensemble, id=request_id)
    if not capabilities.python_engine:
        request = _with_sampling_defaults(request)
    for name, datatype, values in request.tensors():
        if name in capabilities.inputs:
            _add(message, name, datatype, values)
    add_parameters(message, request.request_parameters())
    # Failures are sent as an output: an error response amid an ensemble's stream would leak the request in Triton.
    add_parameters(message, {"error_output": True})
    if client_id is not None:
        add_parameters(message, {"owner": client_id})
    return message


def _with_sampling_defaults(request: EnsembleRequest) -> EnsembleRequest:
    temperature = _DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    return replace(request, temperature=temperature, top_p=_DEFAULT_TOP_P if request.top_p is None else request.top_p)


def add_trace_context(message: pb.ModelInferRequest, headers: Mapping[str, str]) -> None:
    """Add W3C's `traceparent`, so that Python engines continue the trace. Triton itself reads it from gRPC metadata."""
    add_parameters(message, {"traceparent": headers["traceparent"]})


def set_group(message: pb.ModelInferRequest, group: str) -> None:
    """Add the response group (common.response_batch) of a request."""
    add_parameters(message, {GROUP: group})


def ask_for_counts(message: pb.ModelInferRequest) -> None:
    """Let every response tell the tokens of the answer so far, which are counted if it is cut off."""
    add_parameters(message, {"continuous_usage": True})


def with_weights(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    """Return a copy of a request, with an id of its own, that takes its adapter's weights to NVIDIA's C++ backend."""
    copy = pb.ModelInferRequest()
    copy.CopyFrom(message)
    copy.id = f"{message.id}-weights"
    add_parameters(copy, {SEND_WEIGHTS: True})
    return copy


def encode_stop_all(client_id: str, request_id: str, engine: str = ENGINE) -> pb.ModelInferRequest:
    """Encode the request that stops all requests of this client (`Settings.owner`) in a Python engine."""
    message = encode_stop(request_id, engine)
    add_parameters(message, {"owner": client_id})
    return message


def encode_forget(client_id: str, before: float, request_id: str, postprocessing: str) -> pb.ModelInferRequest:
    """Encode the request that makes `postprocessing` forget this client's answers that began earlier.

    before: seconds of the Unix epoch.
    """
    message = pb.ModelInferRequest(model_name=postprocessing, id=request_id)
    _add(message, "engine_error", "BYTES", (b"the client is gone",))
    add_parameters(message, {"owner": client_id, FORGET_BEFORE: str(before)})
    return message


def encode_stop(request_id: str, engine: str = ENGINE) -> pb.ModelInferRequest:
    """Encode the request that stops the request of the same id in the engine."""
    message = pb.ModelInferRequest(model_name=engine, id=request_id)
    # The engine requires both lengths, even of a stop.
    _add(message, "input_lengths", "INT32", (1,))
    _add(message, "request_output_len", "INT32", (1,))
    _add(message, "stop", "BOOL", (True,))
    _add(message, "streaming", "BOOL", (True,))
    return message


def encode_tokenize(
    *,
    text: str | None,
    messages: bytes | None,
    images: tuple[bytes, ...] = (),
    add_special_tokens: bool | None = None,
    token_strs: bool = False,
    request_id: str,
    preprocessing: str = PREPROCESSING,
) -> pb.ModelInferRequest:
    """Encode a request to the model `preprocessing` for the token ids of a text or chat.

    add_special_tokens: None for the default. token_strs: request the vocabulary's text of each id too. A request for
    all outputs would announce an answer.
    """
    message = pb.ModelInferRequest(model_name=preprocessing, id=request_id)
    message.outputs.add(name="input_ids")
    if token_strs:
        message.outputs.add(name="token_strs")
        message.parameters["return_token_strs"].bool_param = True
    if add_special_tokens is not None:
        add_parameters(message, {"add_special_tokens": add_special_tokens})
    if text is not None:
        _add(message, "text_input", "BYTES", (text,))
    if messages is not None:
        _add(message, "messages", "BYTES", (messages,))
    if images:
        _add(message, "images", "BYTES", images)
    return message


def encode_detokenize(
    ids: Sequence[int], request_id: str, postprocessing: str = POSTPROCESSING
) -> pb.ModelInferRequest:
    """Encode a request to the model `postprocessing` for the text of these ids, with special tokens."""
    message = pb.ModelInferRequest(model_name=postprocessing, id=request_id)
    _add(message, "output_ids", "INT32", ids, shape=(1, 1, len(ids)))
    # LENGTH, because the text of an id that ends the answer would be left out.
    _add(message, "engine_finish_reason", "INT32", (FinishReason.LENGTH,))
    add_parameters(message, {"skip_special_tokens": False})
    return message


def encode_probe(model: str, request_id: str) -> pb.ModelInferRequest:
    """Encode the smallest request that a model of the ensemble answers, to check that its process is alive."""
    if role(model) == PREPROCESSING:
        return encode_tokenize(text="a", messages=None, request_id=request_id, preprocessing=model)
    if role(model) == POSTPROCESSING:
        return encode_detokenize((0,), request_id, model)
    if role(model) == ENGINE:
        message = encode_stop(request_id, model)
        # The answer to a stop has no tensor; Triton sends such a response only if this parameter requests it.
        add_parameters(message, {"triton_enable_empty_final_response": True})
        return message
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    _add(message, "input_lengths", "INT32", (1,))
    return message


def encode_versions(request_id: str, engine: str = ENGINE) -> pb.ModelInferRequest:
    """Encode the request to a Python engine for its versions: a stop that asks for BUILD_INFO only."""
    message = encode_probe(engine, request_id)
    message.outputs.add(name=BUILD_INFO)
    return message


def decode_versions(response: pb.ModelInferResponse) -> Versions:
    """Decode the versions; all of them are None if the engine has not told them."""
    found: Any = orjson.loads(_string(_raw(response, BUILD_INFO)) or "{}")
    return Versions.from_json(found)


def encode_statistics(request_id: str, engine: str = ENGINE) -> pb.ModelInferRequest:
    """Encode the request to a Python engine for its statistics: a stop that asks for STATISTICS only."""
    message = encode_probe(engine, request_id)
    message.outputs.add(name=STATISTICS)
    return message


def decode_statistics(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Decode the engine's statistics."""
    found: dict[str, Any] = orjson.loads(_string(_raw(response, STATISTICS)) or "{}")
    return found


def encode_adapters(request_id: str, engine: str, change: Mapping[str, Parameter]) -> pb.ModelInferRequest:
    """Encode the request to a Python engine for its adapters. change: the parameters that load or unload one."""
    message = encode_probe(engine, request_id)
    message.outputs.add(name=ADAPTERS)
    add_parameters(message, change)
    return message


def encode_backend_adapters(request_id: str, preprocessing: str) -> pb.ModelInferRequest:
    """Encode the request to `preprocessing` for the adapters that it has for NVIDIA's C++ backend."""
    message = pb.ModelInferRequest(model_name=preprocessing, id=request_id)
    message.outputs.add(name=ADAPTERS)
    _add(message, "text_input", "BYTES", ("a",))
    return message


def decode_adapters(response: pb.ModelInferResponse) -> tuple[Adapter, ...]:
    """Decode the adapters that an engine tells."""
    return read_adapters(_string(_raw(response, ADAPTERS)))


def decode_ids(response: pb.ModelInferResponse) -> list[int]:
    """Decode the token ids of a response of `preprocessing`."""
    raw = _raw(response, "input_ids")
    return list(struct.unpack(f"<{len(raw) // 4}i", raw))


def decode_token_strs(response: pb.ModelInferResponse) -> list[str]:
    """Decode the vocabulary's texts of a response of `preprocessing`."""
    raw, texts, at = _raw(response, "token_strs"), [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return texts


def decode_text(response: pb.ModelInferResponse) -> str:
    """Decode the text of a response of `postprocessing`."""
    return _string(_raw(response, "text_output"))


def decode_delta(response: pb.ModelInferResponse) -> Delta:
    """Decode the tensors of one response of the ensemble."""
    values: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        known = _READERS.get(output.name)
        if known is not None and raw:
            name, read = known
            values[name] = read(raw)
    return Delta(**values, final=is_final(response))


def answer_rows(response: pb.ModelInferResponse) -> list[list[Any]] | None:
    """Decode a response that holds additions to several answers; None if it is no such response.

    Rows have the fields of AnswerRow, and after them what a newer version adds.
    """
    if len(response.outputs) != 1 or response.outputs[0].name != ANSWERS:
        return None
    return decode_rows(response.raw_output_contents[0])


def ends(more: Mapping[str, Any] | None) -> bool:
    """Return whether a row of a batch with these further fields is the last of its request."""
    return more is not None and not more.keys().isdisjoint(_LAST)


def row_delta(row: AnswerRow) -> Delta:
    """Return the addition that a row of a batch holds, without fields that this version does not know."""
    if row.more is None:
        return Delta(row.text)
    more: dict[str, Any] = {
        name: tuple(one) if name in _LISTS else one for name, one in row.more.items() if name in OUTPUTS
    }
    return Delta(row.text, **more, final="finish_reason" in more)


def row_size(row: AnswerRow) -> int:
    """Return the memory that a row's addition takes, in bytes, more or less."""
    return text_size(row.text) + (len(str(row.more)) if row.more else 0)


def text_size(text: str) -> int:
    """Return the memory that a delta with only this text takes, in bytes, more or less."""
    return 200 + len(text)


def is_final(response: pb.ModelInferResponse) -> bool:
    """Return whether Triton flagged the response as the last of its request."""
    return "triton_final_response" in response.parameters and response.parameters["triton_final_response"].bool_param


def has_finished(response: pb.ModelInferResponse) -> bool:
    """Return whether only empty responses can follow."""
    return is_final(response) or any(output.name in _LAST for output in response.outputs)


def _raw(response: pb.ModelInferResponse, name: str) -> bytes:
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.name == name:
            return bytes(raw)
    raise RequestError(f"The model gave no '{name}'", kind="internal")


def _string(raw: bytes) -> str:
    return raw[4:].decode("utf-8", "replace")


def _json(raw: bytes) -> tuple[Any, ...]:
    return tuple(orjson.loads(raw[4:]))


def _int(raw: bytes) -> int:
    return int.from_bytes(raw[:4], "little", signed=True)


_DECODERS: dict[Encoding, Callable[[bytes], Any]] = {"text": _string, "json": _json, "int": _int}
# The outputs that an answer ends with, which are also fields of Delta.
_LAST = frozenset(("finish_reason", "error"))
_LISTS = frozenset(name for name, output in OUTPUTS.items() if output.encoding == "json")
# Ensemble output -> the field of Delta that it fills, and how its bytes are read.
_READERS = {output.name: (name, _DECODERS[output.encoding]) for name, output in OUTPUTS.items()}


def _add(
    message: pb.ModelInferRequest,
    name: str,
    datatype: Datatype,
    values: Sequence[Any],
    shape: tuple[int, ...] | None = None,
) -> None:
    message.inputs.add(name=name, datatype=datatype, shape=shape or (1, len(values)))
    message.raw_input_contents.append(_pack(datatype, values))


def _pack(datatype: Datatype, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
    encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
    return b"".join(struct.pack("<I", len(item)) + item for item in encoded)


def add_parameters(message: pb.ModelInferRequest, parameters: Mapping[str, Parameter]) -> None:
    """Add request parameters, each with the type that its value has."""
    for name, value in parameters.items():
        parameter = message.parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int):
            parameter.int64_param = value
        else:
            parameter.string_param = value
