# SPDX-License-Identifier: Apache-2.0
"""Token counts of an answer."""

from typing import Any

from frontend.triton.tensors import Delta


class Usage:
    """Counts over all choices. The choices of one prompt (`per_prompt` of them) share its tokens: counted once."""

    def __init__(self, per_prompt: int) -> None:
        self._per_prompt = per_prompt
        self.completion_tokens = 0
        self._reasoning_tokens: int | None = None
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}

    def add(self, choice: int, delta: Delta) -> None:
        prompt = choice // self._per_prompt
        if delta.prompt_tokens is not None:
            self._prompt_tokens[prompt] = delta.prompt_tokens
        if delta.cached_tokens is not None:
            # Later choices of a prompt find it in the cache, which is not the client's saving: the least counts.
            self._cached_tokens[prompt] = min(delta.cached_tokens, self._cached_tokens.get(prompt, 2**31))
        if delta.completion_tokens is not None:
            self.completion_tokens += delta.completion_tokens
        if delta.reasoning_tokens is not None:
            self._reasoning_tokens = (self._reasoning_tokens or 0) + delta.reasoning_tokens

    @property
    def prompt_tokens(self) -> int:
        return sum(self._prompt_tokens.values())

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompts that the engine had in its cache; None where it does not tell."""
        return sum(self._cached_tokens.values()) if self._cached_tokens else None

    def body(self) -> dict[str, Any]:
        """The OpenAI usage object; details that the engine does not tell are left out."""
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
