# SPDX-License-Identifier: Apache-2.0
"""Constraints of plain completions as the engine's guide tensors. Those of chats are built by preprocessing."""

import json
from collections.abc import Callable
from typing import Any

import orjson

from common.errors import RequestError
from frontend.protocol.common import GenerationBody


def guide_inputs(body: GenerationBody) -> dict[str, Any]:
    """Return the two guided-decoding fields of EnsembleRequest; empty if there is no constraint."""
    constraints = body.constraints()
    if not constraints:
        return {}
    ((kind, value),) = constraints[0].items()
    try:
        guide_type, guide = _GUIDES[kind](value)
    except orjson.JSONEncodeError:
        raise RequestError("The JSON schema is nested too deeply", param=body.constraint_field) from None
    return {"guided_decoding_guide_type": guide_type, "guided_decoding_guide": guide}


def _schema(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        return "json_schema", value
    return "json_schema", orjson.dumps(value).decode()


def _choice(values: list[str]) -> tuple[str, str]:
    # A JSON string literal is also an EBNF string literal.
    return "ebnf_grammar", "root ::= " + " | ".join(json.dumps(value, ensure_ascii=False) for value in values)


_GUIDES: dict[str, Callable[[Any], tuple[str, str | None]]] = {
    "json_object": lambda _: ("json", None),
    "json": _schema,
    "regex": lambda value: ("regex", value),
    "choice": _choice,
    "grammar": lambda value: ("ebnf_grammar", value),
}
