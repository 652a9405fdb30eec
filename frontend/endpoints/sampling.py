# SPDX-License-Identifier: Apache-2.0
"""What a chat and a plain completion ask of the engine, as ensemble inputs and request parameters."""

from typing import Any

from frontend.protocol.common import GenerationBody
from frontend.triton.tensors import Parameter


def sampling_inputs(body: GenerationBody) -> dict[str, Any]:
    """Fields of EnsembleRequest that do not depend on the kind of completion."""
    temperature, top_p = body.temperature, body.top_p
    top_k = body.top_k if body.top_k and body.top_k > 0 else None
    if temperature == 0 or top_p == 0:
        # Both mean the most likely token. Engines differ in how they take a zero, but not in top_k 1.
        top_k, top_p = 1, 1.0
    bias = sorted((int(token), value) for token, value in (body.logit_bias or {}).items())
    return {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": None if body.seed is None else body.seed % 2**64,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "repetition_penalty": body.repetition_penalty,
        "min_tokens": body.min_tokens,
        "end_id": -1 if body.ignore_eos else None,
        "bad_words": tuple(body.bad_words or ()),
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "logit_bias_ids": tuple(token for token, _ in bias),
        "logit_bias_values": tuple(value for _, value in bias),
        # A stop string is found in the text, after the engine: only a streaming engine can be stopped there.
        "stream": bool(body.stream or body.stop),
    }


def engine_parameters(body: GenerationBody) -> dict[str, Parameter]:
    """Request parameters for what the engine's tensors have no name for."""
    parameters: dict[str, Parameter] = {}
    if body.min_p:
        # A gRPC parameter of older Tritons holds no float.
        parameters["min_p"] = repr(float(body.min_p))
    if body.priority:
        parameters["request_priority"] = body.priority
    return parameters
