# SPDX-License-Identifier: Apache-2.0
"""The fields of answers that `return_token_ids` and `prompt_logprobs` ask for, in vLLM's form."""

from dataclasses import replace
from typing import Any

import orjson

from frontend.protocol.common import GenerationBody
from frontend.triton.tensors import Delta, EnsembleRequest


def with_first_parameters(
    request: EnsembleRequest, body: GenerationBody, *, echoed: int | None = None, choices: int = 1
) -> EnsembleRequest:
    """Return the request of a prompt's first choice, which alone asks the engine about the prompt.

    echoed: alternatives of a completion's own log-probabilities, if they begin with those of the prompt. choices: how
    many of the answer have log-probabilities of a prompt.
    """
    asked: dict[str, Any] = {}
    if body.return_token_ids:
        asked["prompt_token_ids"] = True
    alternatives = [count for count in (body.prompt_logprobs, echoed) if count is not None]
    if alternatives:
        asked["prompt_logprobs"] = max(alternatives)
        if choices > 1:
            asked["prompt_logprobs_choices"] = choices
    return replace(request, parameters={**request.parameters, **asked}) if asked else request


def of_prompt(body: GenerationBody, first: Delta) -> dict[str, Any]:
    """Return the fields about a prompt. first: the answer of its first choice."""
    fields: dict[str, Any] = {}
    if body.prompt_logprobs is not None:
        fields["prompt_logprobs"] = [_row(entry, body.prompt_logprobs) for entry in first.prompt_logprobs]
    if body.return_token_ids:
        fields["prompt_token_ids"] = list(first.prompt_token_ids)
    return fields


def token_ids_json(body: GenerationBody, delta: Delta) -> tuple[bytes, bytes]:
    """Return `token_ids` and `prompt_token_ids` of a chunk, each as JSON after a comma; empty if there are none."""
    if not body.return_token_ids:
        return b"", b""
    ids = b',"token_ids":' + orjson.dumps(delta.token_ids) if delta.token_ids else b""
    prompt_ids = b',"prompt_token_ids":' + orjson.dumps(delta.prompt_token_ids) if delta.prompt_token_ids else b""
    return ids, prompt_ids


def _row(entry: dict[str, Any], count: int) -> dict[str, Any] | None:
    """Convert an entry of a prompt's token: by id, the token itself and then its `count` alternatives."""
    if entry["logprob"] is None:
        return None
    row = {str(one["id"]): _value(one) for one in entry["top_logprobs"][:count]}
    return {str(entry["id"]): _value(entry)} | row


def _value(one: dict[str, Any]) -> dict[str, Any]:
    return {"logprob": one["logprob"], "rank": one["rank"], "decoded_token": one["token"]}
