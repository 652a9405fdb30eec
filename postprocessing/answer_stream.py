# SPDX-License-Identifier: Apache-2.0
"""Turns the generated ids of one answer into the fields of an OpenAI response."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer

from common.answer_delta import AnswerDelta
from common.answer_options import AnswerOptions
from common.finish_reason import FinishReason
from families.parsers import (
    AnswerFormat,
    ChatParser,
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallStart,
)
from postprocessing.detokenizer import Detokenizer
from postprocessing.logprobs import logprob_entry, token_table
from postprocessing.stop_strings import StopMatcher

# The OpenAI finish_reason of each; "timeout" and "cancelled" are this project's own.
_FINISH_REASONS: dict[int, str] = {
    FinishReason.END_ID: "stop",
    FinishReason.STOP_WORDS: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TIMED_OUT: "timeout",
    FinishReason.CANCELLED: "cancelled",
}
_STOPPED = (FinishReason.END_ID, FinishReason.STOP_WORDS)


@dataclass(slots=True)
class StreamDelta(AnswerDelta):
    """The addition of one engine response to an answer.

    stop_engine: a stop string ended the answer while the engine continues; the caller must stop it.
    """

    stop_engine: bool = False


class AnswerStream:
    """Turns the ids of one answer into deltas: detokenize, match stop strings, parse.

    end_ids: ids that end an answer; the one that does has no text. The request's own stop tokens have theirs only if
    the request includes it. completion_tokens: ids consumed so far.
    """

    def __init__(
        self, tokenizer: Tokenizer, answer_format: AnswerFormat, options: AnswerOptions, end_ids: frozenset[int]
    ) -> None:
        self._options = options
        self._silent_ids = end_ids if options.include_stop else end_ids.union(options.stop_token_ids)
        self._tokens = token_table(tokenizer)
        self._parser = ChatParser(answer_format, options) if options.chat else None
        self._detokenizer = Detokenizer(
            tokenizer,
            skip_special_tokens=options.skip_special_tokens,
            markup=self._parser.markers if self._parser else (),
        )
        self._stop = StopMatcher(options.stop, include_stop=options.include_stop)
        self.completion_tokens = 0
        self._reasoning_tokens = 0
        self._called = False  # a tool call was made
        self._finished = False

    def feed(
        self,
        ids: Sequence[int],
        *,
        logprobs: Sequence[float] | None = None,
        top_ids: Sequence[Sequence[int]] | None = None,
        top_logprobs: Sequence[Sequence[float]] | None = None,
        engine_finish: int | None = None,
    ) -> StreamDelta:
        """Consume the ids of one engine response, up to the one that completes a stop string.

        logprobs: one per id. top_ids, top_logprobs: alternatives per id, likeliest first. Further ids get no entry or
        no alternatives. engine_finish: a FinishReason with the engine's last response.

        Returns an empty delta once the answer has ended. Raises ValueError for an unknown `engine_finish`.
        """
        if engine_finish is not None and engine_finish not in _FINISH_REASONS:
            raise ValueError(f"unknown engine finish reason {engine_finish}; known: {sorted(map(int, FinishReason))}")
        if self._finished:
            return StreamDelta()
        ended_by_id = engine_finish in _STOPPED and len(ids) > 0 and ids[-1] in self._silent_ids
        events: list[Event] = []
        consumed = 0
        for consumed, token_id in enumerate(ids, 1):
            self._consume(token_id, events, end=ended_by_id and consumed == len(ids))
            if self._stop.matched is not None:
                break
        entries = self._entries(ids[:consumed], logprobs, top_ids, top_logprobs)
        if engine_finish is not None:
            events += self._read(self._detokenizer.flush())
        matched = self._stop.matched is not None
        if matched or engine_finish is not None:
            events += self._flush(cut=not matched and engine_finish not in _STOPPED)
        text, reasoning, tool_calls = _fields(events)
        self._called = self._called or bool(tool_calls)
        self._finished = matched or engine_finish is not None
        token_ids = tuple(ids[:consumed]) if self._options.token_ids else ()
        if not self._finished and not self._options.continuous_usage:
            return StreamDelta(text, reasoning, tool_calls, entries, token_ids=token_ids)
        return StreamDelta(
            text,
            reasoning,
            tool_calls,
            entries,
            token_ids=token_ids,
            finish_reason=self._finish_reason(engine_finish) if self._finished else None,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self._reasoning_tokens,
            stop_string=self._stop.matched,
            stop_engine=self._finished and engine_finish is None,
        )

    def _consume(self, token_id: int, events: list[Event], *, end: bool) -> None:
        self.completion_tokens += 1
        if end:
            return
        inside = self._in_reasoning
        events += self._read(self._detokenizer.feed(token_id))
        if inside and self._in_reasoning:
            self._reasoning_tokens += 1

    @property
    def _in_reasoning(self) -> bool:
        return self._parser is not None and self._parser.in_reasoning

    def _read(self, text: str) -> list[Event]:
        if not text:
            return []
        # As in vLLM, what the first tokens complete ends nothing.
        early = self.completion_tokens <= self._options.min_tokens
        return self._parse(self._stop.feed(text, early=early))

    def _parse(self, text: str) -> list[Event]:
        if not text:
            return []
        return self._parser.feed(text) if self._parser else [ContentDelta(text)]

    def _flush(self, *, cut: bool) -> list[Event]:
        events = self._parse(self._stop.flush())
        return events + self._parser.flush(cut=cut) if self._parser else events

    def _entries(
        self,
        ids: Sequence[int],
        logprobs: Sequence[float] | None,
        top_ids: Sequence[Sequence[int]] | None,
        top_logprobs: Sequence[Sequence[float]] | None,
    ) -> tuple[dict[str, Any], ...]:
        if not self._options.logprobs or logprobs is None:
            return ()
        count = self._options.top_logprobs
        entries = []
        for n, (token_id, logprob) in enumerate(zip(ids, logprobs, strict=False)):
            ids_here = top_ids[n][:count] if top_ids is not None and n < len(top_ids) else ()
            values = top_logprobs[n][:count] if top_logprobs is not None and n < len(top_logprobs) else ()
            entries.append(logprob_entry(self._tokens, token_id, logprob, ids_here, values))
        return tuple(entries)

    def _finish_reason(self, engine_finish: int | None) -> str:
        """The OpenAI finish reason; a stop string overrides the engine's.

        A named tool_choice ends with "stop", as in OpenAI's API, because the client requested exactly this call.
        """
        if self._stop.matched is not None or engine_finish is None:
            return "stop"
        reason = _FINISH_REASONS[engine_finish]
        if reason == "stop" and self._called and not self._options.tool_choice.startswith("function:"):
            return "tool_calls"
        return reason


def _fields(events: list[Event]) -> tuple[str, str, tuple[dict[str, Any], ...]]:
    """Merge events into text, reasoning and tool-call deltas; consecutive arguments of a call become one delta."""
    # Of one token there is rarely more than one.
    if not events:
        return "", "", ()
    if len(events) == 1 and isinstance(events[0], ContentDelta):
        return events[0].text, "", ()
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    for kind, group in groupby(events, key=_kind):
        if kind is ContentDelta:
            text += (event.text for event in group if isinstance(event, ContentDelta))
        elif kind is ReasoningDelta:
            reasoning += (event.text for event in group if isinstance(event, ReasoningDelta))
        elif kind is ToolCallStart:
            calls += (_start_delta(event) for event in group if isinstance(event, ToolCallStart))
        else:
            arguments = "".join(event.text for event in group if isinstance(event, ToolArgumentsDelta))
            calls.append({"index": kind, "function": {"arguments": arguments}})
    return "".join(text), "".join(reasoning), tuple(calls)


def _kind(event: Event) -> type[Event] | int:
    """A key of events that can be merged: arguments of the same call, other events of the same class."""
    return event.index if isinstance(event, ToolArgumentsDelta) else type(event)


def _start_delta(event: ToolCallStart) -> dict[str, Any]:
    function = {"name": event.name, "arguments": ""}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}
