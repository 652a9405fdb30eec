# SPDX-License-Identifier: Apache-2.0
"""The fields that the bodies of chats and plain completions have in common."""

import math
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from common.errors import RequestError
from common.sampling import INT32_MAX, PRIORITY, SAMPLING, Limits

MAX_CHOICES = 128
# vLLM and Anthropic's API document no limit. To prepare so many characters takes `postprocessing` a tenth of a second,
# in which it does nothing else.
MAX_STOPS, MAX_STOP_CHARS = 1024, 65_536
MAX_ALLOWED = 65_536
MAX_LOGPROBS = 20

_CONSTRAINTS = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")

_TOKEN_DIGITS = len(str(INT32_MAX))
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("must be -1 or at least 1")
    return value


# How many tokens of a prompt to keep; -1 for as many as fit.
Truncation = Annotated[int, Field(ge=-1, le=INT32_MAX), AfterValidator(_not_zero)]


def _within(limits: Limits) -> Any:
    """The constraint of a field with these limits."""
    return Field(ge=None if math.isinf(limits.low) else limits.low, le=None if math.isinf(limits.high) else limits.high)


def sampled(name: str) -> Any:
    """The constraint of a sampling parameter: its limits, as the engines know them."""
    return _within(SAMPLING[name].limits)


def _one_or_more(schema: dict[str, Any]) -> None:
    """Add to the schema that `stop` may also be one string."""
    schema["anyOf"].append({"type": "string", "maxLength": 4096})


def _fail_fast(schema: Any) -> None:
    """Set `fail_fast` in all lists and mappings of a schema of pydantic's."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "dict"):
            schema["fail_fast"] = True
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for inner in schema:
            _fail_fast(inner)


class Body(BaseModel):
    """A request body. Types are strict: "5" is not a number and true is not an integer, but 1 is a float."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Let lists and mappings end at their first mistake, the only one that is reported.

        A list of two million mistakes would take gigabytes and, of this process's one thread, half a minute.
        """
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Read a body; raises ValidationError, or RequestError, naming the first mistake."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            _forget_frames(error)
            raise


def _forget_frames(error: ValidationError) -> None:
    """Let go of the frames in which the validators raised.

    Those lead to the request, which leads back to the error, and Python's garbage collector does not see what an error
    of pydantic's Rust code holds: the request and its body would never be freed.
    """
    for mistake in error.errors(include_url=False, include_input=False):
        cause = mistake.get("ctx", {}).get("error")
        if isinstance(cause, Exception):
            cause.__traceback__ = cause.__context__ = cause.__cause__ = None


class StreamOptions(Body):
    """`stream_options`."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class StructuredOutputs(Body):
    """vLLM's `structured_outputs`: exactly one of its fields is given."""

    json_: str | dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = Field(None, min_length=1, max_length=1024)
    grammar: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        if len(self.given()) != 1:
            raise ValueError("give exactly one of json, regex, choice, grammar")
        return self

    def given(self) -> dict[str, Any]:
        """The fields that are not None, by their JSON names."""
        values = {"json": self.json_, "regex": self.regex, "choice": self.choice, "grammar": self.grammar}
        return {name: value for name, value in values.items() if value is not None}


class JsonSchema(Body):
    """The `json_schema` of a response format."""

    name: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Body):
    """`response_format`."""

    type: str
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _known(self) -> "ResponseFormat":
        if self.type not in ("text", "json_object", "json_schema"):
            raise ValueError("type must be text, json_object or json_schema")
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required with type json_schema")
        return self


class GenerationBody(Body):
    """The common fields of a chat and a plain completion. Null is the same as absent in every field."""

    model: str | None = None
    temperature: Annotated[FiniteFloat, sampled("temperature")] | None = None
    top_p: Annotated[FiniteFloat, sampled("top_p")] | None = None
    top_k: Annotated[int, sampled("top_k")] | None = None
    min_p: Annotated[FiniteFloat, sampled("min_p")] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Annotated[list[Word], Field(max_length=MAX_STOPS)] | None = Field(None, json_schema_extra=_one_or_more)
    # Wider than the engines' range: a negative seed is one of its upper half.
    seed: Annotated[int, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    logit_bias: Annotated[dict[str, FiniteFloat], Field(max_length=1024)] | None = None
    presence_penalty: Annotated[FiniteFloat, sampled("presence_penalty")] | None = None
    frequency_penalty: Annotated[FiniteFloat, sampled("frequency_penalty")] | None = None
    repetition_penalty: Annotated[FiniteFloat, sampled("repetition_penalty")] | None = None
    min_tokens: Annotated[int, sampled("min_tokens")] | None = None
    thinking_token_budget: Annotated[int, sampled("thinking_token_budget")] | None = None
    ignore_eos: bool | None = None
    bad_words: Annotated[list[Word], Field(max_length=1024)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    priority: Annotated[int, _within(PRIORITY)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(max_length=MAX_ALLOWED)] | None = None
    cache_salt: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Truncation | None = None
    truncation_side: Literal["left", "right"] | None = None
    return_token_ids: bool | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(min_length=1, max_length=1024)] | None = None
    guided_grammar: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [value] if value else None
        return value

    @field_validator("stop")
    @classmethod
    def _stops_are_short(cls, value: list[str] | None) -> list[str] | None:
        if sum(map(len, value or ())) > MAX_STOP_CHARS:
            raise ValueError(f"all together may have at most {MAX_STOP_CHARS} characters")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _biases(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token, bias in (value or {}).items():
            # Zeros may lead a number, to a length that Python does not read.
            if not (token.isascii() and token.isdigit() and len(token) <= _TOKEN_DIGITS and int(token) <= INT32_MAX):
                raise ValueError("keys must be token ids")
            if not -100 <= bias <= 100:
                raise ValueError("values must be from -100 to 100")
        return value

    @model_validator(mode="after")
    def _agree(self) -> "GenerationBody":
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options is only allowed with stream", param="stream_options")
        if self.prompt_logprobs is not None and self.stream:
            raise RequestError("prompt_logprobs cannot be streamed", param="prompt_logprobs")
        if len(self.constraints()) > 1:
            raise RequestError(
                "give only one of response_format, structured_outputs and guided_*", param="response_format"
            )
        return self

    def without_prompt(self) -> Self:
        """Return a copy with only the fields that tell how an answer is written: none that may be large."""
        large = (str, list, tuple, dict, BaseModel)
        kept = ("stream_options",)
        return self.model_copy(
            update={name: None for name, value in self if isinstance(value, large) and name not in kept}
        )

    @property
    def choices(self) -> int:
        """The number of answers to each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def constraint_field(self) -> str:
        """The field that the constraint is in; response_format if there is none."""
        return next((name for name in _CONSTRAINTS if getattr(self, name) is not None), "response_format")

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream holds the usage so far; as in vLLM, only together with `include_usage`."""
        return (
            self.include_usage and self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)
        )

    def constraints(self) -> list[dict[str, Any]]:
        """The constraints on the form of the answer, each as a field of `structured_outputs`."""
        given: list[dict[str, Any]] = []
        if self.response_format is not None and self.response_format.type == "json_object":
            given.append({"json_object": True})
        if self.response_format is not None and self.response_format.json_schema is not None:
            given.append({"json": self.response_format.json_schema.schema_})
        return given + self.structured()

    def structured(self) -> list[dict[str, Any]]:
        """The constraints that `structured_outputs` and the fields `guided_*` give."""
        given: list[dict[str, Any]] = []
        if self.structured_outputs is not None:
            given.append(self.structured_outputs.given())
        guided = {
            "json": self.guided_json,
            "regex": self.guided_regex,
            "choice": self.guided_choice,
            "grammar": self.guided_grammar,
        }
        given += [{name: value} for name, value in guided.items() if value is not None]
        return given


def as_object(value: Any, param: str) -> dict[str, Any]:
    """Return a JSON object; raises RequestError naming the field if the value is none."""
    if not isinstance(value, dict):
        raise RequestError(f"{param} must be an object", param=param)
    return value


def as_list(value: Any, param: str, kind: str = "a list") -> list[Any]:
    """Return a JSON array; raises RequestError naming the field if the value is none. kind: what it must be."""
    if not isinstance(value, list):
        raise RequestError(f"{param} must be {kind}", param=param)
    return value


def too_deep(fields: dict[str, Any]) -> str | None:
    """Return the name of a field that cannot be written as JSON: orjson reads deeper nesting than it writes."""
    for name, value in fields.items():
        try:
            orjson.dumps({name: value})
        except orjson.JSONEncodeError:
            return name
    return None
