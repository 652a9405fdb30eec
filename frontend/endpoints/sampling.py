# SPDX-License-Identifier: Apache-2.0
"""The sampling fields of chats and plain completions, as ensemble inputs and request parameters."""

import hashlib
import json
from dataclasses import replace
from typing import Any

from common.sampling import SAMPLING
from frontend.protocol.common import GenerationBody
from frontend.telemetry.request_record import current
from frontend.triton.tensors import EnsembleRequest, Parameter

# Below these both fields request the most likely token. Sent as they are, they would become 0 in FP32, or a divisor
# that overflows, which engines refuse or turn into NaN. vLLM's limit of greedy decoding is the same temperature; no
# vocabulary has a million tokens, so its most likely token alone has more than TINY_TOP_P.
TINY_TEMPERATURE = 1e-5
TINY_TOP_P = 1e-6


def sampling_inputs(body: GenerationBody) -> dict[str, Any]:
    """Return the fields of EnsembleRequest that chats and plain completions have in common."""
    sampling = {name: getattr(body, name) for name in SAMPLING}
    top_p = body.top_p
    top_k = body.top_k if body.top_k and body.top_k > 0 else None
    cold = body.temperature is not None and body.temperature < TINY_TEMPERATURE
    if cold or (top_p is not None and top_p < TINY_TOP_P):
        # Engines differ in their handling of 0, but not of top_k 1.
        top_k, top_p = 1, 1.0
    bias = sorted((int(token), value) for token, value in (body.logit_bias or {}).items())
    return {
        **sampling,
        "temperature": 0.0 if cold else body.temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": body.min_p or None,
        "thinking_token_budget": None if body.thinking_token_budget == -1 else body.thinking_token_budget,
        # As in vLLM and SGLang, -1 is none.
        "seed": None if body.seed in (None, -1) else body.seed % 2**64,
        "end_id": -1 if body.ignore_eos else None,
        "bad_words": tuple(body.bad_words or ()),
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "logit_bias_ids": tuple(token for token, _ in bias),
        "logit_bias_values": tuple(value for _, value in bias),
        # Stop strings are matched in postprocessing: only a streaming engine can be stopped by them.
        "stream": bool(body.stream or body.stop),
    }


def seeded(request: EnsembleRequest, choices: int) -> list[EnsembleRequest]:
    """Return the request of each choice of a prompt: with a seed of its own, if the request has one."""
    if request.seed is None:
        return [request] * choices
    return [replace(request, seed=(request.seed + choice) % 2**64) for choice in range(choices)]


def engine_parameters(body: GenerationBody, *, salt_by_key: bool) -> dict[str, Parameter]:
    """Return the request parameters of fields that no tensor carries.

    salt_by_key: `Settings.cache_salt_by_key`.
    """
    parameters: dict[str, Parameter] = {}
    if body.priority:
        parameters["request_priority"] = body.priority
    if body.allowed_token_ids:
        parameters["allowed_token_ids"] = json.dumps(body.allowed_token_ids)
    for name in ("add_special_tokens", "truncate_prompt_tokens", "truncation_side"):
        if (value := getattr(body, name)) is not None:
            parameters[name] = value
    if salt := _cache_salt(body.cache_salt, salt_by_key):
        parameters["cache_salt"] = salt
    return parameters


def _cache_salt(given: str | None, salt_by_key: bool) -> str | None:
    """Return the salt of the prefix cache. Those of different API keys differ, whatever their requests say."""
    key = current().key
    if not salt_by_key or key is None:
        return given
    return hashlib.blake2b(json.dumps([key, given]).encode(), digest_size=16).hexdigest()
