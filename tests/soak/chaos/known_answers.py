# SPDX-License-Identifier: Apache-2.0
"""What the scripted engine answers: a prompt has a number, and each number its own answer."""

from typing import Any

NUMBERS = 24


def story(number: int) -> str:
    """Return the answer to a story's number: 3 to 95 words that no other answer has."""
    return f"Story {number:02}: " + " ".join(f"w{number:02}n{word}" for word in range(3 + 4 * number)) + "."


def ping(model: str, *, embedding: bool) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of the shortest request to a model. embedding: whether it makes embeddings."""
    if embedding:
        return "/v1/embeddings", {"model": model, "input": "ping"}
    return "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "ping"}]}


def rules() -> list[dict[str, Any]]:
    """Return the script of the engine."""
    call = '<tool_call>\n{"name": "f", "arguments": {"number": "%02d"}}\n</tool_call>'
    return [
        *({"contains": f"tell story {one:02}", "text": story(one), "delay_s": 0.02} for one in range(NUMBERS)),
        *({"contains": f"call tool {one:02}", "text": call % one, "delay_s": 0.01} for one in range(NUMBERS)),
        {"contains": "ping", "text": "pong"},
    ]
