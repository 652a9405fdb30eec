# SPDX-License-Identifier: Apache-2.0
"""Token counts of an answer."""

from typing import Any

from frontend.triton.tensors import Delta


class Usage:
    """Counts over all choices. The tokens of a prompt are counted once for its `per_prompt` choices."""

    def __init__(self, per_prompt: int) -> None:
        self._per_prompt = per_prompt
        self.completion_tokens = 0
        self._reasoning_tokens: int | None = None
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}

    def add(self, choice: int, delta: Delta) -> None:
        """Add the counts of a delta."""
        prompt = choice // self._per_prompt
        if delta.prompt_tokens is not None:
            self._prompt_tokens[prompt] = delta.prompt_tokens
        if delta.cached_tokens is not None:
            # Take the least: later choices of a prompt find it cached, which saves the client nothing.
            self._cached_tokens[prompt] = min(delta.cached_tokens, self._cached_tokens.get(prompt, 2**31))
        if delta.completion_tokens is not None:
            self.completion_tokens += delta.completion_tokens
        if delta.reasoning_tokens is not None:
            self._reasoning_tokens = (self._reasoning_tokens or 0) + delta.reasoning_tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(self._prompt_tokens.values())

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompts that were in the engine's cache; None if the engine does not report them."""
        return sum(self._cached_tokens.values()) if self._cached_tokens else None

    def body(self) -> dict[str, Any]:
        """Return the OpenAI usage object, without details that the engine does not report."""
        body: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.cached_tokens is not None:
            body["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self._reasoning_tokens is not None:
            body["completion_tokens_details"] = {"reasoning_tokens": self._reasoning_tokens}
        return body
