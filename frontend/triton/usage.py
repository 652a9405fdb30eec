# SPDX-License-Identifier: Apache-2.0
"""Token counts of an answer."""

from collections.abc import Mapping
from typing import Any

from frontend.triton.tensors import Delta


class Usage:
    """Counts over all choices. The tokens of a prompt are counted once for its `per_prompt` choices."""

    def __init__(self, per_prompt: int) -> None:
        self._per_prompt = per_prompt
        self._completion_tokens: dict[int, int] = {}
        self._reasoning_tokens: dict[int, int] = {}
        self._prompt_tokens: dict[int, int] = {}
        self._cached_tokens: dict[int, int] = {}
        self._finished: set[int] = set()

    def add(self, choice: int, delta: Delta) -> None:
        """Take the counts of a delta, which are those of the answer so far."""
        prompt = choice // self._per_prompt
        if delta.prompt_tokens is not None:
            self._prompt_tokens[prompt] = delta.prompt_tokens
        if delta.cached_tokens is not None:
            # Take the least: later choices of a prompt find it cached, which saves the client nothing.
            self._cached_tokens[prompt] = min(delta.cached_tokens, self._cached_tokens.get(prompt, 2**31))
        if delta.completion_tokens is not None:
            self._completion_tokens[choice] = delta.completion_tokens
        if delta.reasoning_tokens is not None:
            self._reasoning_tokens[choice] = delta.reasoning_tokens
        if delta.finish_reason is not None:
            self._finished.add(choice)

    def add_unfinished(self, generated: Mapping[int, int]) -> None:
        """Count the choices that were cut off or failed. generated: the tokens of each choice that came from Triton."""
        for choice, tokens in generated.items():
            if choice not in self._finished:
                self._completion_tokens[choice] = max(tokens, self._completion_tokens.get(choice, 0))

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(self._completion_tokens.values())

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
        if self._reasoning_tokens:
            body["completion_tokens_details"] = {"reasoning_tokens": sum(self._reasoning_tokens.values())}
        return body

    def so_far(self, choice: int, *, begun: bool = True) -> dict[str, int]:
        """Return the counts of one choice and its prompt. begun: False before the first chunk with tokens."""
        prompt = self._prompt_tokens.get(choice // self._per_prompt, 0)
        completion = self._completion_tokens.get(choice, 0) if begun else 0
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
