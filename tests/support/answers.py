# SPDX-License-Identifier: Apache-2.0
"""Helpers of the answer tests: feed text or ids in pieces, and gather what comes out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from common.answer_options import AnswerOptions
from families.parsers import (
    TOOL_FORMATS,
    AnswerFormat,
    ChatParser,
    ContentDelta,
    Event,
    Parser,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallStart,
)
from postprocessing.answer_stream import AnswerStream, StreamDelta

THINK = "think"
THINK_TAGS = ("<think>", "</think>")


@dataclass
class Answer:
    """The fields of a whole answer; calls as [name, arguments]."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)


def gather(events: Iterable[Event]) -> Answer:
    """Add events up, checking that calls are numbered in order, have ids of their own and come in one piece each."""
    answer, ids = Answer(), set()
    in_call = False
    for event in events:
        assert in_call or not isinstance(event, ToolArgumentsDelta), "something came between the pieces of a call"
        in_call = isinstance(event, ToolCallStart | ToolArgumentsDelta)
        match event:
            case ContentDelta(text):
                answer.content += text
            case ReasoningDelta(text):
                answer.reasoning += text
            case ToolCallStart(index, call_id, name):
                assert index == len(answer.calls)
                assert call_id not in ids
                ids.add(call_id)
                answer.calls.append([name, ""])
            case ToolArgumentsDelta(index, text):
                assert index == len(answer.calls) - 1
                answer.calls[index][1] += text
    return answer


def parse(parser: Parser, pieces: Iterable[str]) -> Answer:
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    return gather(events + parser.flush())


def parse_cut(parser: ChatParser, pieces: Iterable[str]) -> Answer:
    """The answer of a text that ended before the model did."""
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    return gather(events + parser.flush(cut=True))


def parse_both_ways(create: Callable[[], Parser], text: str) -> Answer:
    """The answer of a whole text, checked to be the same when its characters arrive one by one."""
    whole = parse(create(), [text])
    assert parse(create(), text) == whole
    return whole


def tool_parser(name: str) -> Parser:
    """A parser of one format of tool calls, without what the request's functions say of their arguments."""
    markup = TOOL_FORMATS[name].markup
    assert markup, "the format's reasoning parser reads the calls"
    return markup.parser({})


def cut(text: str, places: Iterable[int]) -> list[str]:
    """The text in pieces that end at the given places (taken modulo its length)."""
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def stream(
    tokenizer: Tokenizer,
    groups: Sequence[Sequence[int]],
    answer_format: AnswerFormat,
    options: AnswerOptions,
    *,
    finish: int = 1,
    end_ids: frozenset[int] = frozenset(),
) -> list[StreamDelta]:
    """The deltas of ids that arrive in groups, the last with the engine's finish reason."""
    answers = AnswerStream(tokenizer, answer_format, options, end_ids)
    last = len(groups) - 1
    return [answers.feed(ids, engine_finish=finish if n == last else None) for n, ids in enumerate(groups)]


def add_up(deltas: Iterable[StreamDelta]) -> Answer:
    """Add deltas up as OpenAI clients do."""
    answer = Answer()
    for delta in deltas:
        answer.content += delta.text
        answer.reasoning += delta.reasoning
        for call in delta.tool_calls:
            if "id" in call:
                assert call["index"] == len(answer.calls)
                assert call["type"] == "function"
                answer.calls.append([call["function"]["name"], ""])
            answer.calls[call["index"]][1] += call["function"]["arguments"]
    return answer
