# SPDX-License-Identifier: Apache-2.0
"""How a request controls the model's reasoning: on or off, and with how much effort."""

from collections.abc import Mapping
from typing import Any

# OpenAI's efforts, the least first.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# Template variables by which clients of vLLM and SGLang turn reasoning on and off.
FLAGS = ("enable_thinking", "thinking")


def thinking_asked(template_kwargs: Mapping[str, Any], flag: bool | None, effort: str | None) -> bool | None:
    """Whether a request asks the model to reason; None if it leaves that to the model.

    template_kwargs: the client's own variables, which come first. flag: the request's `enable_thinking`. An effort asks
    for reasoning unless it is "none", as in vLLM.
    """
    for name in FLAGS:
        if isinstance(own := template_kwargs.get(name), bool):
            return own
    if flag is not None:
        return flag
    effort = effort_asked(template_kwargs, effort)
    return None if effort is None else effort != "none"


def effort_asked(template_kwargs: Mapping[str, Any], effort: str | None) -> str | None:
    """The effort that a request asks for: that in the client's own variables if it is one of EFFORTS, else `effort`."""
    own = template_kwargs.get("reasoning_effort")
    return own if own in EFFORTS else effort
