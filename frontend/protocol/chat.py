# SPDX-License-Identifier: Apache-2.0
"""The body of POST /v1/chat/completions."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, field_validator, model_validator

from common.chat.media import read_media_request
from common.chat.reasoning import thinking_asked
from common.chat.request import MAX_TEMPLATE_CHARS
from common.chat.tools import TOOL_NAME
from common.errors import RequestError
from common.sampling import INT32_MAX
from frontend.protocol.common import Body, GenerationBody, sampled

MAX_MESSAGES = 10_000
MAX_TOOLS = 1024
MAX_DOCUMENTS = 1024
# The types of `thinking`.
_FLAGS = {"enabled": True, "disabled": False, "adaptive": None}


class Function(Body):
    """The definition of a function that the model may call."""

    name: Annotated[str, Field(pattern=f"^{TOOL_NAME}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """An element of `tools`."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name of a function that must be called."""

    name: str


class NamedTool(Body):
    """A `tool_choice` that names a function."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Body):
    """Some of the request's tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(Body):
    """A `tool_choice` that allows some of the request's tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools

    def narrow(self, tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the allowed ones of a request's `tools`, and the `tool_choice` that says the same with them."""
        names = {tool.function.name for tool in self.allowed_tools.tools}
        allowed = [tool for tool in tools if tool["function"]["name"] in names]
        return {"tools": allowed, "tool_choice": self.allowed_tools.mode}


class Thinking(Body):
    """A `thinking` as in Anthropic's API; "adaptive" leaves the choice to the model."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, sampled("thinking_token_budget")] | None = None


Verbosity = Literal["low", "medium", "high"]


class ChatPrompt(Body):
    """The fields that determine the prompt, which /tokenize has too."""

    model: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | AllowedToolsChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    thinking: bool | Thinking | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    documents: Annotated[list[dict[str, Any]], Field(max_length=MAX_DOCUMENTS)] | None = None
    verbosity: Verbosity | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @field_validator("tool_choice", mode="wrap")
    @classmethod
    def _known_choice(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValueError:
            raise ValueError("must be auto, none, required, a function by name or allowed_tools") from None

    @model_validator(mode="after")
    def _tools_agree(self) -> "ChatPrompt":
        if self.tool_choice in (None, "none", "auto"):
            return self
        if not self.tools:
            raise RequestError("tool_choice is only allowed with tools", param="tool_choice")
        named: list[NamedTool] = []
        if isinstance(self.tool_choice, NamedTool):
            named = [self.tool_choice]
        elif isinstance(self.tool_choice, AllowedToolsChoice):
            named = self.tool_choice.allowed_tools.tools
        if not {tool.function.name for tool in named} <= {tool.function.name for tool in self.tools}:
            raise RequestError("tool_choice names a function that is not among tools", param="tool_choice")
        return self

    @model_validator(mode="after")
    def _one_ending(self) -> "ChatPrompt":
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message and add_generation_prompt exclude each other", param="continue_final_message"
            )
        return self

    @model_validator(mode="after")
    def _media_options(self) -> "ChatPrompt":
        read_media_request({"mm_processor_kwargs": self.mm_processor_kwargs, "media_io_kwargs": self.media_io_kwargs})
        return self

    def thinks(self, default: bool | None) -> bool | None:
        """Whether the model reasons: as the request says, else `default` (None: the model's default)."""
        flag = self.enable_thinking
        if flag is None and self.thinking is not None:
            flag = self.thinking if isinstance(self.thinking, bool) else _FLAGS[self.thinking.type]
        asked = thinking_asked(self.chat_template_kwargs or {}, flag, self.reasoning_effort)
        return default if asked is None else asked

    def tool_choice_name(self) -> str:
        """`tool_choice` in the form of AnswerOptions."""
        if isinstance(self.tool_choice, AllowedToolsChoice):
            return self.tool_choice.allowed_tools.mode
        if isinstance(self.tool_choice, NamedTool):
            return f"function:{self.tool_choice.function.name}"
        return self.tool_choice or "auto"


class ChatBody(GenerationBody, ChatPrompt):
    """The whole body of a chat completion."""

    max_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    separate_reasoning: bool | None = None
    include_reasoning: bool | None = None
    echo: bool | None = None

    @model_validator(mode="after")
    def _constraints_agree(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs is only allowed with logprobs", param="top_logprobs")
        if self.tool_choice_name() not in ("none", "auto") and self.structured():
            raise RequestError(
                "tool_choice that forces a call excludes structured_outputs and guided_*", param="tool_choice"
            )
        return self

    @model_validator(mode="after")
    def _lengths_agree(self) -> "ChatBody":
        if self.min_tokens and self.length is not None and self.min_tokens > self.length:
            raise RequestError("min_tokens is above max_tokens", param="min_tokens")
        return self

    @property
    def reasoning_budget(self) -> int | None:
        """Maximum number of tokens of reasoning; None for no limit."""
        budget = self.thinking_token_budget
        if budget is None and isinstance(self.thinking, Thinking):
            budget = self.thinking.budget_tokens
        return None if budget == -1 else budget

    @property
    def length(self) -> int | None:
        """Maximum number of tokens to generate; None for the rest of the context."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
