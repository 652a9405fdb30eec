# SPDX-License-Identifier: Apache-2.0
"""The base of all prompt formatters: render the checkpoint's chat template, and infer the answer format from it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from common.chat.messages import Message
from common.chat.request import ChatRequest
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.formats import Formats, detect_formats
from families.history import fit_history
from families.parsers import GENERIC, REASONING_FORMATS, AnswerFormat
from families.reasoning_switches import template_switches, variables, with_word
from families.response_template import described
from families.stylers import generic_tools


class Styler:
    """How one model family is prompted and how its answers are read.

    Subclasses override the hooks in which the family differs from what its chat template says.
    """

    name: ClassVar[str]
    # Tokens that end a turn of this family, added to the end ids if a checkpoint's configuration lacks them.
    turn_ends: ClassVar[tuple[str, ...]] = ()

    def __init__(self, template_defaults: Mapping[str, Any] | None = None, *, describe_tools: bool = True) -> None:
        """Create the styler of one server.

        template_defaults: the server's own `chat_template_kwargs`; a request's values override them.
        describe_tools: describe tools in the prompt if the family has no form of its own for them.
        """
        self.template_defaults: Mapping[str, Any] = dict(template_defaults or {})
        self.describe_tools = describe_tools
        # The operator's choice of the formats of calls and reasoning, instead of the family's.
        self.tool_format: str | None = None
        self.reasoning_format: str | None = None

    def render(self, tokenizer: ChatTokenizer, chat: ChatRequest) -> str:
        """The prompt text of a chat, with BOS if the template writes one.

        Raises RequestError if the family cannot express the chat.
        """
        # A request's own template gets what the request has.
        if chat.chat_template or self.renders_tools(tokenizer) or not generic_tools.in_use(chat):
            return self._render(tokenizer, chat)
        as_text = generic_tools.write_as_text(chat)
        if not chat.tools or not self.describe_tools:
            return self._render(tokenizer, as_text)
        description = generic_tools.describe(chat)
        with suppress(RequestError):  # Some templates refuse a system message, some leave it out.
            prompt = self._render(
                tokenizer, generic_tools.in_system_turn(as_text, description, self.template_kwargs(chat))
            )
            if description in prompt:
                return prompt
        return self._render(tokenizer, generic_tools.in_first_turn(as_text, description))

    def _render(self, tokenizer: ChatTokenizer, chat: ChatRequest) -> str:
        messages, kwargs = self._template_input(tokenizer, chat)
        try:
            prompt = tokenizer.render(
                messages,
                self.rendered_tools(chat),
                template=chat.chat_template or self._template(tokenizer),
                add_generation_prompt=chat.add_generation_prompt,
                continue_final_message=chat.continue_final_message,
                template_kwargs=kwargs,
            )
        except RequestError as error:
            if not isinstance(error.__cause__, Exception):
                raise
            if chat.chat_template:  # The template's fault.
                raise RequestError(error.message, param="chat_template") from error
            if chat.template_kwargs:
                self._render(tokenizer, replace(chat, template_kwargs={}))  # Raises if it is not that of the variables.
                raise RequestError(error.message, param="chat_template_kwargs") from error
            raise
        thinking_off = chat.thinking is False and chat.add_generation_prompt
        reasoning = self._reasoning(tokenizer) if thinking_off else None
        if reasoning and prompt.rstrip().endswith(REASONING_FORMATS[reasoning].open):
            field, value = ("reasoning_effort", "none") if chat.effort == "none" else ("enable_thinking", "false")
            raise RequestError(f"{field} cannot be {value}: the served model always thinks", param=field)
        return prompt

    def _template_input(self, tokenizer: ChatTokenizer, chat: ChatRequest) -> tuple[list[Message], dict[str, Any]]:
        """The messages as the template takes them, and its variables with those that switch reasoning.

        The client's own variables win.
        """
        source = chat.chat_template or self.source(tokenizer)
        thinking, messages = self.thinking(chat), self.arrange(chat)
        switches = template_switches(tokenizer, source, thinking, chat.effort)
        own = passed_on(source, chat)
        kwargs = {**self.template_kwargs(chat), **switches, **own, **chat.template_kwargs}
        return with_word(source, fit_history(tokenizer, source, messages), thinking), kwargs

    def answer_format(self, tokenizer: ChatTokenizer) -> AnswerFormat:
        """How the family writes reasoning and tool calls, inferred from what its template renders."""
        reasoning = self._reasoning(tokenizer)
        if reasoning is None:
            return AnswerFormat(tool_parser=self._tool_parser(tokenizer))
        opening, closing = REASONING_FORMATS[reasoning].open, REASONING_FORMATS[reasoning].close
        by_default = self._generation_prompt(tokenizer, None)
        switched_on, switched_off = (self._generation_prompt(tokenizer, thinking) for thinking in (True, False))
        off = by_default.endswith(closing) or (by_default == switched_off != switched_on)
        return AnswerFormat(
            reasoning=reasoning,
            reasoning_starts_open=switched_on.endswith(opening),
            # A template that opens the tag in spite of `enable_thinking` false belongs to a model that always thinks.
            thinking_default=by_default.endswith(opening) or not off,
            tool_parser=self._tool_parser(tokenizer),
        )

    def stop_ids(self, tokenizer: ChatTokenizer) -> tuple[int, ...]:
        """Ids of `turn_ends` that the vocabulary has."""
        ids = (tokenizer.token_id(token) for token in self.turn_ends)
        return tuple(item for item in ids if item is not None)

    def template_kwargs(self, chat: ChatRequest) -> dict[str, Any]:
        """Variables for the template: the server's defaults, overridden by the request's values."""
        return {**self.template_defaults, **chat.template_kwargs}

    def thinking(self, chat: ChatRequest) -> bool | None:
        """Whether the model shall reason: as the request says, else the server; None leaves it to the template."""
        return self.template_defaults.get("enable_thinking") if chat.thinking is None else chat.thinking

    def arrange(self, chat: ChatRequest) -> list[Message]:
        """The messages in the roles and order that the family's template accepts."""
        return chat.messages

    def rendered_tools(self, chat: ChatRequest) -> list[dict[str, Any]]:
        """The tool definitions to pass to the template."""
        return [tool.definition for tool in chat.tools]

    def template(self, tokenizer: ChatTokenizer) -> str | None:
        """Jinja source to use instead of the checkpoint's chat template, or None."""
        return None

    def source(self, tokenizer: ChatTokenizer) -> str:
        """The Jinja source in use: the server's own, the family's or the checkpoint's; "" if there is none."""
        return self._template(tokenizer) or tokenizer.template or ""

    def reasoning(self, tokenizer: ChatTokenizer) -> str | None:
        """The key in families.parsers.REASONING_FORMATS of how the family reasons, or None; by default by the rules."""
        return self._detected(tokenizer).reasoning

    def renders_tools(self, tokenizer: ChatTokenizer) -> bool:
        """Whether the prompt has tools in a form of the family's own, by default if its template reads `tools`."""
        return "tools" in self.source(tokenizer)

    def tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        """The key in families.parsers.TOOL_FORMATS of how the family calls tools; None if it is not known."""
        return self._detected(tokenizer).tools

    def _detected(self, tokenizer: ChatTokenizer) -> Formats:
        rules = detect_formats(self.source(tokenizer))
        return described(tokenizer.response_template, rules) if tokenizer.response_template else rules

    def _template(self, tokenizer: ChatTokenizer) -> str | None:
        """As `template`, unless the server has a template of its own."""
        return None if tokenizer.replaces_template else self.template(tokenizer)

    def _reasoning(self, tokenizer: ChatTokenizer) -> str | None:
        return self.reasoning_format or self.reasoning(tokenizer)

    def _tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        if self.tool_format is not None:
            return self.tool_format
        if self.renders_tools(tokenizer):
            return self.tool_parser(tokenizer)
        return GENERIC if self.describe_tools else None

    def _generation_prompt(self, tokenizer: ChatTokenizer, thinking: bool | None) -> str:
        chat = ChatRequest(messages=[{"role": "user", "content": "?"}], thinking=thinking)
        messages, kwargs = self._template_input(tokenizer, chat)
        return tokenizer.render(messages, template=self._template(tokenizer), template_kwargs=kwargs).rstrip()


def passed_on(source: str, chat: ChatRequest) -> dict[str, Any]:
    """The request's own fields that the template `source` reads as variables of these names.

    Raises RequestError if it reads no documents: an answer without them would not be one about them.
    """
    read = variables(source)
    if chat.documents and "documents" not in read:
        raise RequestError("the served model's chat template takes no documents", param="documents")
    given = {"documents": list(chat.documents) or None, "verbosity": chat.verbosity}
    return {name: value for name, value in given.items() if value is not None and name in read}
