# SPDX-License-Identifier: Apache-2.0
"""Parses a chat answer's text: the reasoning parser first, then the tool parser."""

from dataclasses import dataclass

from common.answer_options import AnswerOptions
from common.chat.text_arguments import TextArguments, read_text_arguments
from common.markers import MarkerScanner
from families.parsers.events import ContentDelta, Event, Parser, ReasoningDelta, ToolCallStart
from families.parsers.forced_calls import ForcedCallsParser
from families.parsers.formats import (
    REASONING_FORMATS,
    TOOL_FORMATS,
    Markup,
    ReasoningFormat,
    check_format,
    forced_format,
)
from families.parsers.harmony import HarmonyParser
from families.parsers.named_calls import NamedCallsParser
from families.parsers.reasoning import ReasoningParser
from families.parsers.whole_arguments import ArgumentsCompleter

# Of an answer: what looked like calls inside the reasoning and was none is read again, which must not add up.
_MOST_REFUSALS = 20
# Characters that a trial reads before it is asked whether it has failed.
_TRIAL_PIECE = 64


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How one family of models writes its answers.

    reasoning: a key of `REASONING_FORMATS`; None for models without.
    reasoning_starts_open: the generation prompt ends with the opening tag if thinking is on.
    thinking_default: whether the family thinks if the request does not set `enable_thinking`.
    tool_parser: a key of `TOOL_FORMATS`; None if only forced calls can be read, which then have the form `GENERIC`.
    Raises ValueError for unknown names.
    """

    reasoning: str | None = None
    reasoning_starts_open: bool = False
    thinking_default: bool = True
    tool_parser: str | None = None

    def __post_init__(self) -> None:
        if self.tool_parser is not None:
            check_format(self.tool_parser, TOOL_FORMATS)
        if self.reasoning is not None:
            check_format(self.reasoning, REASONING_FORMATS)

    @property
    def reasoning_format(self) -> ReasoningFormat | None:
        """The format of the reasoning."""
        return None if self.reasoning is None else REASONING_FORMATS[self.reasoning]

    @property
    def reasoning_tags(self) -> tuple[str, str] | None:
        """The tags around the reasoning."""
        found = self.reasoning_format
        return (found.open, found.close) if found else None

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of markup that an answer may hold."""
        return _markers(self.reasoning_format, TOOL_FORMATS[self.tool_parser].markup if self.tool_parser else None)


class ChatParser:
    """Parses one answer of a family with the options of one request.

    With thinking off a thinking block is still recognised if the model writes one (Qwen3 may write an empty one).
    Without tools, or with tool_choice "none", tool markup is text. With `inline_reasoning` the block is content,
    unchanged.

    Calls inside the reasoning are part of it, unless the answer ends with them while the block is open: some models
    call without closing it, and then the reasoning has ended before the calls.
    """

    def __init__(self, answer_format: AnswerFormat, options: AnswerOptions) -> None:
        self._inline = options.inline_reasoning
        self._text_arguments = read_text_arguments(options.text_arguments)
        markup = _markup(answer_format, options)
        self._markup = markup
        self._tools = _tool_parser(markup, options, self._text_arguments)
        self._dropped: MarkerScanner | None = None
        reasoning = answer_format.reasoning_format
        self._reasoning: ReasoningParser | HarmonyParser | None = None
        starts_open = starts_in_reasoning(answer_format, options)
        if reasoning and reasoning.channels:
            # Its calls are read by the generic parser only if they were forced into that form.
            own_calls = answer_format.tool_parser is not None and TOOL_FORMATS[answer_format.tool_parser].markup is None
            reads_calls = options.tools and options.tool_choice != "none" and own_calls
            self._reasoning = HarmonyParser(tools=reads_calls, starts_open=starts_open)
        elif reasoning:
            self._reasoning = ReasoningParser(
                (reasoning.open, reasoning.close),
                starts_open=starts_open,
                verbatim=options.inline_reasoning,
                interrupts=markup.triggers if markup else (),
            )
            self._dropped = MarkerScanner(*reasoning.dropped) if reasoning.dropped else None
        self._trial: _Trial | None = None
        self._refusals = 0
        self._completer = ArgumentsCompleter()
        self.markers = _markers(reasoning, markup)

    @property
    def in_reasoning(self) -> bool:
        """Whether the last text read is reasoning."""
        return self._trial is not None or (self._reasoning is not None and self._reasoning.inside)

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        return self._completer.feed(self._feed(text))

    def flush(self, *, cut: bool = False) -> list[Event]:
        """The remaining events at the end of the answer.

        cut: it ended before the model did, so that arguments of a call stay unfinished; else they are completed.
        """
        return self._completer.feed(self._flush(), cut=cut) + self._completer.flush(cut=cut)

    def _feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            if self._trial:
                text = self._try(text, events)
            elif self._reasoning is None:
                events += self._read_content(text)
                text = ""
            else:
                events += self._pass_on(self._reasoning.feed(text))
                text = self._interrupted()
        return events

    def _flush(self) -> list[Event]:
        events: list[Event] = []
        while trial := self._trial:
            trial.flush()
            self._trial = None
            if trial.called and not trial.failed:
                events += trial.events
                return events
            events += self._feed(self._refuse(trial, events))
        if self._reasoning:
            events += self._pass_on(self._reasoning.flush())
        if self._dropped and (rest := self._dropped.flush()):
            events += self._write_content(rest)
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

    # Content: markup that clients do not see is dropped, then calls are read.

    def _read_content(self, text: str) -> list[Event]:
        if self._dropped is None:
            return self._write_content(text)
        events: list[Event] = []
        position = 0
        while position < len(text):
            clear, _, position = self._dropped.scan(text, position)
            if clear:
                events += self._write_content(clear)
        return events

    def _write_content(self, text: str) -> list[Event]:
        return self._tools.feed(text) if self._tools else [ContentDelta(text)]

    # A tool call inside the reasoning.

    def _interrupted(self) -> str:
        """Begin a trial if the reasoning has come to the beginning of a call; returns the text to read next."""
        if not isinstance(self._reasoning, ReasoningParser):
            return ""
        if self._reasoning.ended:
            self._reasoning = None  # The rest of the answer is content.
            return ""
        if not self._reasoning.interrupted or not self._markup:
            return ""
        marker, rest = self._reasoning.take_interruption()
        self._trial = _Trial(marker, self._markup.parser(self._text_arguments), frozenset(self._text_arguments))
        self._trial.feed(marker)
        return rest

    def _try(self, text: str, events: list[Event]) -> str:
        trial = self._trial
        if trial is None:
            return text
        # In pieces, as most trials fail at once and the text after them may hold many more beginnings of calls.
        for start in range(0, len(text), _TRIAL_PIECE):
            end = start + _TRIAL_PIECE
            trial.feed(text[start:end])
            if trial.failed:
                self._trial = None
                return self._refuse(trial, events) + text[end:]
        return ""

    def _refuse(self, trial: "_Trial", events: list[Event]) -> str:
        """Go on with the reasoning; returns the text after the marker, to be read again."""
        self._refusals += 1
        if isinstance(self._reasoning, ReasoningParser):
            events += self._pass_on(self._reasoning.write(trial.marker))
            if self._refusals == _MOST_REFUSALS:
                self._reasoning.ignore_interrupts()
        return "".join(trial.text)[len(trial.marker) :]


class _Trial:
    """Text in the reasoning that begins as a call does. functions: those of the request, if known.

    called: a call has begun. failed: there is other text than calls of these functions.
    """

    def __init__(self, marker: str, parser: Parser, functions: frozenset[str]) -> None:
        self.marker = marker
        self.text: list[str] = []
        self.events: list[Event] = []
        self.called = self.failed = False
        self._parser = parser
        self._functions = functions

    def feed(self, text: str) -> None:
        """Read the next piece of text."""
        self.text.append(text)
        self._add(self._parser.feed(text))
        if isinstance(self._parser, NamedCallsParser) and self._parser.holds_content:
            self.failed = True

    def flush(self) -> None:
        """Read the end of the answer."""
        self._add(self._parser.flush())

    def _add(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ToolCallStart):
                self.called = True
                self.failed = self.failed or bool(self._functions and event.name not in self._functions)
            elif isinstance(event, ContentDelta):
                self.failed = True
        self.events += events


def _markup(answer_format: AnswerFormat, options: AnswerOptions) -> Markup | None:
    """How the calls of an answer are written; None if there are none to be read."""
    if not options.tools or options.tool_choice == "none":
        return None
    name = answer_format.tool_parser if options.tool_choice == "auto" else forced_format(answer_format.tool_parser)
    return TOOL_FORMATS[name].markup if name else None


def _tool_parser(markup: Markup | None, options: AnswerOptions, text_arguments: TextArguments) -> Parser | None:
    if markup is None:
        return None
    parser = markup.parser(text_arguments)
    # Engines without structural tags force calls as JSON alone.
    return ForcedCallsParser(parser) if options.tool_choice != "auto" and markup.triggers else parser


def _markers(reasoning: ReasoningFormat | None, markup: Markup | None) -> tuple[str, ...]:
    return (*(reasoning.markers if reasoning else ()), *(markup.markers if markup else ()))


def starts_in_reasoning(answer_format: AnswerFormat, options: AnswerOptions) -> bool:
    """Whether an answer starts inside the reasoning, as its prompt ended if that is known, else as its family does."""
    if options.reasoning_open is not None:
        return options.reasoning_open
    thinking = answer_format.thinking_default if options.enable_thinking is None else options.enable_thinking
    return answer_format.reasoning_starts_open and thinking
