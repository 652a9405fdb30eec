# SPDX-License-Identifier: Apache-2.0
"""The sampling parameters of a generation under an engine's own names."""

import re
from collections.abc import Mapping
from typing import Any

from common.errors import RequestError
from common.sampling import SAMPLING
from engines.engine import Generation

# Fields that an engine may name when it refuses a request; these are OpenAI's names.
_FIELDS = frozenset(SAMPLING) | {"max_tokens", "stop_token_ids", "bad_words", "logit_bias", "logprobs", "priority"}
_FIELDS |= {"allowed_token_ids", "cache_salt", "prompt_logprobs"}


def refused(message: str, parameter: str | None = None) -> RequestError:
    """The RequestError for an engine's refusal, with the OpenAI field that the engine means as its param.

    parameter: the engine's name of the field, if it gives one; otherwise it is looked for in the message.
    """
    for word in (parameter, *re.findall(r"[a-z_]+", message)):
        if word in _FIELDS:
            return RequestError(message, param=word)
    return RequestError(message)


def given_sampling(generation: Generation, names: Mapping[str, str | None]) -> dict[str, Any]:
    """The sampling parameters that the request sets.

    names: field of Generation -> the engine's name; None if the engine has no such parameter.
    Raises RequestError if the request sets one that the engine does not have.
    """
    given: dict[str, Any] = {}
    for field, name in names.items():
        value = getattr(generation, field)
        if value is None:
            continue
        if name is None:
            raise RequestError(f"this engine does not support {field}", param=field)
        given[name] = value
    return given
