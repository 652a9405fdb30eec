# SPDX-License-Identifier: Apache-2.0
"""Turn the page's controls into the fields of a chat request."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chat_page.turns import PageError, Turn, message, read_tools

THINKING = ("as the model does", "on", "off")


@dataclass(frozen=True, slots=True)
class Controls:
    """The visitor's settings as entered. An empty text or "as the model does" means the server's default."""

    model: str | None
    system: str = ""
    temperature: str = ""
    top_p: str = ""
    max_tokens: str = ""
    seed: str = ""
    thinking: str = THINKING[0]
    tools: str = ""


def request_fields(controls: Controls, turns: Sequence[Turn]) -> dict[str, Any]:
    """Build the arguments of the client's call. Raises PageError if a control is not valid."""
    if not controls.model:
        raise PageError("Choose a model first. An empty list means that the server could not be asked.")
    messages = [{"role": "system", "content": controls.system}] if controls.system.strip() else []
    fields: dict[str, Any] = {"model": controls.model, "messages": [*messages, *map(message, turns)], "stream": True}
    numbers = {
        "temperature": _number("temperature", controls.temperature, float),
        "top_p": _number("top p", controls.top_p, float),
        "max_tokens": _number("max tokens", controls.max_tokens, int),
        "seed": _number("seed", controls.seed, int),
    }
    fields |= {name: value for name, value in numbers.items() if value is not None}
    tools = read_tools(controls.tools)
    if tools:
        fields["tools"] = tools
    if controls.thinking != THINKING[0]:
        fields["extra_body"] = {"enable_thinking": controls.thinking == "on"}
    return fields


def _number(name: str, text: str, kind: type[int] | type[float]) -> float | None:
    if not text.strip():
        return None
    try:
        value = kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise PageError(f"{text.strip()} is not {expected}: see {name} in the settings.") from None
    if not math.isfinite(value):
        raise PageError(f"{text.strip()} is no number to use: see {name} in the settings.")
    return value
