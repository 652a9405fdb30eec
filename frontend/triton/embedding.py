# SPDX-License-Identifier: Apache-2.0
"""The tensors of the Triton model `embedding`. One request has all inputs of a body: that is faster than many."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

from common.errors import RequestError
from common.versions import BUILD_INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRequest:
    """What to embed or score. texts or ids: the prompts. pairs: the texts that prompts are scored against.

    dimensions, truncate_prompt_tokens: None if the client did not set them.
    """

    texts: Sequence[str] = ()
    ids: Sequence[Sequence[int]] = ()
    pairs: Sequence[str] = ()
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PoolingAnswer:
    """Embeddings, FP32 [inputs, dimensions], or scores, FP32 [pairs]. prompt_tokens: of all inputs together."""

    values: npt.NDArray[np.float32]
    prompt_tokens: int


def encode_pooling(request: PoolingRequest, model: str, request_id: str) -> pb.ModelInferRequest:
    """Encode a request to the Triton model of this name."""
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    _add_texts(message, "text_input", request.texts)
    _add_texts(message, "text_pair", request.pairs)
    if request.ids:
        _add_numbers(message, "input_ids", list(chain.from_iterable(request.ids)))
        _add_numbers(message, "input_lengths", list(map(len, request.ids)))
    for name in ("dimensions", "truncate_prompt_tokens"):
        if (value := getattr(request, name)) is not None:
            _add_numbers(message, name, [value])
    for name in ("score" if request.pairs else "embedding", "num_input_tokens"):
        message.outputs.add(name=name)
    return message


def encode_about(model: str, request_id: str, output: str = BUILD_INFO) -> pb.ModelInferRequest:
    """Encode a request that the model answers at once: for the versions of its software, or for its STATISTICS."""
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    # Triton takes no request without an input.
    _add_numbers(message, "dimensions", [1])
    message.outputs.add(name=output)
    return message


def decode_pooling(response: pb.ModelInferResponse) -> PoolingAnswer:
    """Decode the response. Raises RequestError if it lacks an output."""
    raw = {
        output.name: (output, data) for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    found = raw.get("embedding") or raw.get("score")
    if found is None or "num_input_tokens" not in raw:
        raise RequestError("The model gave neither embeddings nor scores", kind="internal")
    values = np.frombuffer(found[1], "<f4").reshape(tuple(found[0].shape))
    return PoolingAnswer(values, int(np.frombuffer(raw["num_input_tokens"][1], "<i4").sum()))


def _add_texts(message: pb.ModelInferRequest, name: str, texts: Sequence[str]) -> None:
    if texts:
        encoded = [text.encode() for text in texts]
        message.inputs.add(name=name, datatype="BYTES", shape=(len(texts),))
        message.raw_input_contents.append(b"".join(struct.pack("<I", len(one)) + one for one in encoded))


def _add_numbers(message: pb.ModelInferRequest, name: str, numbers: Sequence[int]) -> None:
    message.inputs.add(name=name, datatype="INT32", shape=(len(numbers),))
    message.raw_input_contents.append(struct.pack(f"<{len(numbers)}i", *numbers))
