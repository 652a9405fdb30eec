# SPDX-License-Identifier: Apache-2.0
"""Map guided decoding's guide types to field names that vLLM and TensorRT-LLM share."""

from typing import Any

from common.errors import RequestError
from engines.engine import Generation

# "json" carries no guide.
GUIDE_FIELDS = {
    "json_schema": "json",
    "regex": "regex",
    "ebnf_grammar": "grammar",
    "structural_tag": "structural_tag",
}


def guide_fields(generation: Generation) -> dict[str, Any] | None:
    """The field of the engine's guide parameters, or None without a guide; raises RequestError for an unknown type."""
    if generation.guide_type is None:
        return None
    if generation.guide_type == "json":
        return {"json_object": True}
    if generation.guide_type not in GUIDE_FIELDS:
        known = ", ".join(sorted(["json", *GUIDE_FIELDS]))
        raise RequestError(
            f"unknown guided decoding type '{generation.guide_type}'; known: {known}",
            param="guided_decoding_guide_type",
        )
    return {GUIDE_FIELDS[generation.guide_type]: generation.guide or ""}
