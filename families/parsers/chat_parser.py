# SPDX-License-Identifier: Apache-2.0
"""Parses a chat answer's text: the reasoning parser first, then the tool parser."""

from dataclasses import dataclass

from common.answer_options import AnswerOptions
from families.parsers.events import ContentDelta, Event, Parser, ReasoningDelta
from families.parsers.forced_calls import ForcedCallsParser
from families.parsers.reasoning import ReasoningParser
from families.parsers.registry import GENERIC, find_tool_parser


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How one family of models writes its answers.

    reasoning_tags: the tags around the reasoning, such as ("<think>", "</think>"); None for models without.
    reasoning_starts_open: the generation prompt ends with the opening tag if thinking is on.
    thinking_default: whether the family thinks if the request does not set `enable_thinking`.
    tool_parser: a name of `TOOL_PARSERS`; None if only forced calls can be read, which then have the form `GENERIC`.
        Raises ValueError for other names.
    """

    reasoning_tags: tuple[str, str] | None = None
    reasoning_starts_open: bool = False
    thinking_default: bool = True
    tool_parser: str | None = None

    def __post_init__(self) -> None:
        if self.tool_parser is not None:
            find_tool_parser(self.tool_parser)


class ChatParser:
    """Parses one answer of a family with the options of one request.

    With thinking off a thinking block is still recognised if the model writes one (Qwen3 may write an empty one).
    Without tools, or with tool_choice "none", tool markup is text. With `inline_reasoning` the block is content,
    unchanged. Tool calls inside reasoning are never parsed.
    """

    def __init__(self, answer_format: AnswerFormat, options: AnswerOptions) -> None:
        self._inline = options.inline_reasoning
        self._reasoning = _reasoning_parser(answer_format, options)
        self._tools: Parser | None = None
        if options.tools and options.tool_choice != "none":
            forced = options.tool_choice != "auto"
            if name := answer_format.tool_parser or (GENERIC if forced else None):
                parser = find_tool_parser(name)()
                self._tools = ForcedCallsParser(parser) if forced and name == GENERIC else parser

    @property
    def in_reasoning(self) -> bool:
        """Whether the last text read is reasoning."""
        return self._reasoning is not None and self._reasoning.inside

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        if self._reasoning is None:
            return self._read_content(text)
        return self._pass_on(self._reasoning.feed(text))

    def flush(self) -> list[Event]:
        """The remaining events at the end of the answer."""
        events = self._pass_on(self._reasoning.flush()) if self._reasoning else []
        return events + self._tools.flush() if self._tools else events

    def _pass_on(self, events: list[Event]) -> list[Event]:
        passed: list[Event] = []
        for event in events:
            if isinstance(event, ContentDelta):
                passed += self._read_content(event.text)
            elif isinstance(event, ReasoningDelta) and self._inline:
                passed.append(ContentDelta(event.text))
            else:
                passed.append(event)
        return passed

    def _read_content(self, text: str) -> list[Event]:
        return self._tools.feed(text) if self._tools else [ContentDelta(text)]


def _reasoning_parser(answer_format: AnswerFormat, options: AnswerOptions) -> ReasoningParser | None:
    if answer_format.reasoning_tags is None:
        return None
    starts_open = starts_in_reasoning(answer_format, options)
    return ReasoningParser(answer_format.reasoning_tags, starts_open=starts_open, verbatim=options.inline_reasoning)


def starts_in_reasoning(answer_format: AnswerFormat, options: AnswerOptions) -> bool:
    """Whether an answer starts inside the reasoning, as its prompt ended if that is known, else as its family does."""
    if options.reasoning_open is not None:
        return options.reasoning_open
    thinking = answer_format.thinking_default if options.enable_thinking is None else options.enable_thinking
    return answer_format.reasoning_starts_open and thinking
