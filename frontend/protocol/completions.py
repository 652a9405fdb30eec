# SPDX-License-Identifier: Apache-2.0
"""The body of POST /v1/completions."""

from typing import Annotated, Any

from pydantic import Field, ValidatorFunctionWrapHandler, WithJsonSchema, field_validator, model_validator

from common.errors import RequestError
from common.sampling import INT32_MAX
from frontend.protocol.common import MAX_CHOICES, MAX_LOGPROBS, GenerationBody

DEFAULT_MAX_TOKENS = 16

Prompt = str | list[int]

_IDS_SCHEMA = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": INT32_MAX}}
_ONE_SCHEMA = {"anyOf": [{"type": "string", "minLength": 1}, _IDS_SCHEMA]}
_PROMPT_SCHEMA = {
    "anyOf": [*_ONE_SCHEMA["anyOf"], {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": _ONE_SCHEMA}]
}


class CompletionBody(GenerationBody):
    """The body of a plain completion. `prompt` becomes a list of prompts, each a text or token ids."""

    prompt: Annotated[list[Prompt], WithJsonSchema(_PROMPT_SCHEMA)]
    max_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None

    @field_validator("prompt", mode="wrap")
    @classmethod
    def _as_list(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> list[Prompt]:
        one = isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int)
        try:
            prompts: list[Prompt] = validate([value] if one else value)
        except ValueError:
            raise ValueError("must be a text, token ids, or a list of either") from None
        if not prompts or not all(prompts):
            raise ValueError("must not be empty")
        if any(not 0 <= token <= INT32_MAX for prompt in prompts if isinstance(prompt, list) for token in prompt):
            raise ValueError("token ids must be from 0 to 2147483647")
        return prompts

    @model_validator(mode="after")
    def _completion_agrees(self) -> "CompletionBody":
        if len(self.prompt) * self.choices > MAX_CHOICES:
            raise RequestError(f"prompts times n must be at most {MAX_CHOICES}", param="n")
        if self.max_tokens == 0 and not self.echo:
            raise RequestError("max_tokens may be 0 only with echo", param="max_tokens")
        if self.echo and self.logprobs is not None and self.stream:
            raise RequestError("echo with logprobs cannot be streamed", param="echo")
        if self.echo and self.truncate_prompt_tokens is not None:
            raise RequestError(
                "echo repeats the whole prompt, of which truncate_prompt_tokens keeps a part", param="echo"
            )
        if self.min_tokens and self.min_tokens > self.length:
            raise RequestError("min_tokens is above max_tokens", param="min_tokens")
        return self

    @property
    def length(self) -> int:
        """Maximum number of tokens to generate."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
