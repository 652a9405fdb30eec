# SPDX-License-Identifier: Apache-2.0
"""A scripted corpus of model answers for each tool-call format, and what a client must read from each answer.

The turns that every family can write are in `_turns`. A `Writer` for each format writes them as the family's chat
template does, and samples spelled out below it hold what only that format knows. The expected fields come from the
turn, never from a parser.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Call = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One model answer as text after the generation prompt, and what a client must read from it.

    answer: without the end-of-turn token. calls: (function name, arguments as JSON text). open: the prompt ended inside
    the reasoning.
    """

    name: str
    answer: str
    reasoning: str = ""
    content: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    open: bool = False


@dataclass(frozen=True, slots=True)
class FormatCorpus:
    """The samples of one tool-call format.

    reasoning: name of the reasoning format used in the samples; None for families that write none.
    writer: writes other turns; None for messages with channels.
    exact_arguments: the calls' arguments are JSON and arrive byte for byte; otherwise their values are compared.
    """

    reasoning: str | None
    samples: tuple[Sample, ...]
    writer: "Writer | None"
    exact_arguments: bool = True


def _tool(name: str, properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {
        "type": "function",
        "function": {"name": name, "description": f"The tool {name}.", "parameters": parameters},
    }


_FILTERS = {
    "type": "object",
    "properties": {
        "price": {"type": "object", "properties": {"min": {"type": "number"}, "max": {"type": "number"}}},
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "colours": {"type": "array", "items": {"type": "string"}},
        "sale": {"type": "boolean"},
    },
}

# The tools of all samples.
TOOLS: list[dict[str, Any]] = [
    _tool(
        "get_weather",
        {"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}},
        ["city"],
    ),
    _tool(
        "search",
        {
            "query": {"type": "string"},
            "filters": _FILTERS,
            "limit": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        ["query"],
    ),
    _tool("now", {}),
    _tool("write_file", {"path": {"type": "string"}, "text": {"type": "string"}}, ["path", "text"]),
    _tool(
        "configure",
        {
            "mode": {"enum": ["fast", "slow"]},
            "timeout": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "level": {"type": ["integer", "null"]},
            "owner": {"type": "string", "nullable": True},
            "data": {},
        },
    ),
]

WEATHER: Call = ("get_weather", {"city": "Paris"})
NOW: Call = ("now", {})
TYPED: Call = ("get_weather", {"city": "München", "days": -3, "metric": True})
SEARCH: Call = (
    "search",
    {
        "query": "red shoes",
        "filters": {"price": {"min": 10, "max": 99.5}, "sizes": [41, 42], "colours": ["red", "rosé"], "sale": False},
        "limit": 2.5,
        "tags": ["a", "b c", "d, e"],
    },
)
LINES: Call = (
    "write_file",
    {"path": "notes/ü b.txt", "text": "Line 1\n\tLine \"2\" 'x' C:\\new\n\n你好 🙂 <b>bold</b> & a < b, [x] {y}\nend"},
)
SPACES: Call = ("write_file", {"path": " x ", "text": "  indented\n    more  "})
EMPTY: Call = ("write_file", {"path": "empty.txt", "text": ""})
# Text that looks like JSON stays text where the parameter is a string.
LOOKS_LIKE_JSON: Call = ("write_file", {"path": "123", "text": '{"a": [1, true]}'})
OPTIONS: Call = (
    "configure",
    {"mode": "fast", "timeout": None, "level": 3, "owner": "ann", "data": {"a": [1, {"b": "c"}]}},
)

REASONING = "The user asks: how is it? 好的。\n\nFirst 1 < 2 & so on 🤔."
TEXT = "Sunny, 21 °C.\n\n- one\n- two"


@dataclass(frozen=True, slots=True)
class Writer:
    """How a family writes a turn.

    calls: writes all calls of a turn. before: text between the content and the first call. think: the text around the
    reasoning as the model writes it; the prompt holds the part before it if `open`. wrap: the text around the content.
    end: the text after all of it. markers: markers of which ordinary text holds only a part. half: a part of the
    reasoning's closing marker, if not all but its last character.

    whole: a turn is either text or calls. single: a turn has one call. call_ends_reasoning: a call may begin inside the
    reasoning. options: the call with null, enum and untyped parameters.
    """

    calls: Callable[[Sequence[Call]], str]
    before: str = "\n"
    think: tuple[str, str] | None = None
    open: bool = False
    wrap: tuple[str, str] = ("", "")
    end: str = ""
    markers: tuple[str, ...] = ()
    half: str = ""
    whole: bool = False
    single: bool = False
    call_ends_reasoning: bool = True
    options: Call = OPTIONS

    def sample(self, name: str, *, reasoning: str = "", content: str = "", calls: Sequence[Call] = ()) -> Sample:
        """The sample of a turn."""
        answer = self.wrap[0] + content + self.wrap[1] if content else ""
        if calls:
            answer += (self.before if content else "") + self.calls(calls)
        opened = False
        if reasoning and self.think:
            answer = ("" if self.open else self.think[0]) + reasoning + self.think[1] + answer
            opened = self.open
        return Sample(name, answer + self.end, reasoning, content, arguments(calls), opened)


def arguments(calls: Iterable[Call]) -> tuple[tuple[str, str], ...]:
    """The calls as a client reads them."""
    return tuple((name, json.dumps(values, ensure_ascii=False)) for name, values in calls)


def _turns(writer: Writer) -> list[Sample]:
    """The turns that a family can write, without what is special to it."""
    samples = [
        writer.sample("text", content=TEXT),
        writer.sample("one call", calls=[WEATHER]),
        writer.sample("call without arguments", calls=[NOW]),
        writer.sample("nested objects and arrays", calls=[SEARCH]),
        writer.sample("string with lines, quotes, markup and emoji", calls=[LINES]),
        writer.sample("spaces around strings", calls=[SPACES]),
        writer.sample("empty string", calls=[EMPTY]),
        writer.sample("strings that look like JSON", calls=[LOOKS_LIKE_JSON]),
        writer.sample("null, enum and untyped", calls=[writer.options]),
    ]
    if "\n" not in "".join(writer.wrap):
        samples.append(writer.sample("text with whitespace around it", content="\n  Well. \n"))
    if not writer.whole:
        samples.append(writer.sample("text, call", content="Let me look.", calls=[TYPED]))
    if not writer.single:
        samples.append(writer.sample("parallel calls", calls=[WEATHER, NOW, TYPED]))
    if not writer.whole and not writer.single:
        samples.append(writer.sample("text, parallel calls", content="Both:", calls=[NOW, SEARCH]))
    if writer.markers:
        halves = " ".join(marker[:-1] + " " + marker[1:] for marker in writer.markers)
        end = f"It is {writer.markers[0][:-1]}"
        samples += [
            writer.sample("halves of markers", content=f"Not a call: {halves} and on."),
            Sample("ends in half a marker", writer.wrap[0] + end, content=end),
        ]
    if writer.think:
        samples += _turns_with_reasoning(writer, *writer.think)
    return samples


def _turns_with_reasoning(writer: Writer, begin: str, close: str) -> list[Sample]:
    begin = "" if writer.open else begin
    half = writer.half or close.strip()[:-1]
    samples = [
        writer.sample("reasoning, text", reasoning=REASONING, content=TEXT),
        writer.sample("reasoning, call", reasoning=REASONING, calls=[WEATHER]),
        writer.sample("half a marker in the reasoning", reasoning=f"a {half} b", content="Yes."),
        Sample("reasoning never closes", begin + REASONING, REASONING, open=writer.open),
    ]
    if not writer.whole:
        samples.append(writer.sample("reasoning, text, call", reasoning=REASONING, content="Well:", calls=[TYPED]))
    if not writer.single:
        samples.append(writer.sample("reasoning, calls", reasoning=REASONING, calls=[TYPED, NOW]))
    if writer.call_ends_reasoning:
        answer = f"{begin}I call it.\n{writer.calls([WEATHER])}"
        calls = arguments([WEATHER])
        samples.append(Sample("call inside the reasoning", answer, "I call it.", "", calls, writer.open))
    return samples


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _plain(value: object) -> str:
    """A value between tags: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json_array(calls: Sequence[Call], key: str = "arguments") -> str:
    return "[" + ", ".join(f'{{"name": "{name}", "{key}": {_json(values)}}}' for name, values in calls) + "]"


# Arguments that only byte for byte copies keep: spacing, escapes, a number's digits, brackets in strings.
_ODD = '{ "city":"\\u5df4\\u9ece \\ud83d\\ude42 \\"}]\\\\" ,\n\t"days" : 1.50e0,"x":[ ] }'


def _hermes() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "\n".join(
            f'<tool_call>\n{{"name": "{name}", "arguments": {_json(values)}}}\n</tool_call>' for name, values in calls
        )

    writer = Writer(calls, think=("<think>\n", "\n</think>\n\n"), markers=("<tool_call>", "</tool_call>"))
    one, two = calls([WEATHER]), calls([NOW])
    spelled = (
        Sample(
            "empty reasoning, call",
            "<think>\n\n</think>\n\n" + one,
            calls=arguments([WEATHER]),
        ),
        Sample("open: reasoning, call", "Hm.\n</think>\n\n" + one, "Hm.", calls=arguments([WEATHER]), open=True),
        Sample("open: reasoning never closes", "Hm, well", "Hm, well", open=True),
        Sample("open: call inside the reasoning", "Hm.\n\n" + one, "Hm.", calls=arguments([WEATHER]), open=True),
        Sample(
            "arguments byte for byte",
            f'<tool_call>{{"name":"get_weather","arguments":{_ODD}}}</tool_call>',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "arguments before the name, and missing",
            '<tool_call>\n{"arguments": {"city": "Rome"}, "name": "get_weather"}\n</tool_call>\n<tool_call>\n{"name": "now"}\n</tool_call>',
            calls=(("get_weather", '{"city": "Rome"}'), ("now", "{}")),
        ),
        Sample(
            "text between and after calls",
            f"First:\n{one}\nThen:\n{two}\nDone.",
            content="First:\nThen:\nDone.",
            calls=arguments([WEATHER, NOW]),
        ),
        Sample("calls without a line end between", one + two, calls=arguments([WEATHER, NOW])),
        Sample(
            "tags inside a string",
            '<tool_call>\n{"name": "write_file", "arguments": {"path": "a", "text": "<tool_call>{}</tool_call> </think>"}}\n</tool_call>',
            calls=(("write_file", '{"path": "a", "text": "<tool_call>{}</tool_call> </think>"}'),),
        ),
        Sample(
            "tags without a call",
            "Write <tool_call>...</tool_call> around it.",
            content="Write <tool_call>...</tool_call> around it.",
        ),
        Sample(
            "tags without a call in the reasoning",
            "<think>\nDo I need <tool_call> here? No.\n</think>\n\nHello.",
            "Do I need <tool_call> here? No.",
            "Hello.",
        ),
        Sample(
            "cut in the arguments",
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample(
            "cut after the arguments",
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer)


def _qwen3_coder() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "\n".join(
            f"<tool_call>\n<function={name}>\n"
            + "".join(f"<parameter={key}>\n{_plain(value)}\n</parameter>\n" for key, value in values.items())
            + "</function>\n</tool_call>"
            for name, values in calls
        )

    writer = Writer(
        calls,
        before="\n\n",
        think=("<think>\n", "\n</think>\n\n"),
        open=True,
        markers=("<tool_call>", "<function=", "</tool_call>"),
    )
    one, two = calls([WEATHER]), calls([NOW])
    spelled = (
        Sample("the opening tag once more", "<think>\nHm.\n</think>\n\nHi.", "Hm.", "Hi.", open=True),
        Sample("closed: reasoning, text", "<think>\nHm.\n</think>\n\nHi.", "Hm.", "Hi."),
        Sample(
            "empty reasoning, call",
            "\n</think>\n\n" + one,
            calls=arguments([WEATHER]),
            open=True,
        ),
        Sample(
            "Python's spelling of constants",
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=metric>\nFalse\n</parameter>\n</function>\n</tool_call>\n"
            "<tool_call>\n<function=configure>\n<parameter=timeout>\nNone\n</parameter>\n</function>\n</tool_call>",
            calls=(("get_weather", '{"city": "Rome", "metric": false}'), ("configure", '{"timeout": null}')),
        ),
        Sample(
            "blank line for no arguments, as xgrammar's tag has it",
            "<tool_call>\n<function=now>\n\n</function>\n</tool_call>",
            calls=arguments([NOW]),
        ),
        Sample(
            "calls without line ends",
            "<tool_call><function=get_weather><parameter=city>Rome</parameter><parameter=days>2</parameter></function></tool_call>",
            calls=(("get_weather", '{"city": "Rome", "days": 2}'),),
        ),
        Sample("calls without a line end between", one + two, calls=arguments([WEATHER, NOW])),
        Sample(
            "text between and after calls",
            f"First:\n{one}\nThen:\n{two}\nDone.",
            content="First:\nThen:\nDone.",
            calls=arguments([WEATHER, NOW]),
        ),
        Sample(
            "tags without a call",
            "Write <tool_call>...</tool_call> or <parameter=x> around it.",
            content="Write <tool_call>...</tool_call> or <parameter=x> around it.",
        ),
        Sample(
            "tags without a call in the reasoning",
            "Do I need <tool_call> here? No.\n</think>\n\nHello.",
            "Do I need <tool_call> here? No.",
            "Hello.",
            open=True,
        ),
        Sample(
            "tags of other kinds inside a string",
            "<tool_call>\n<function=write_file>\n<parameter=path>\na.html\n</parameter>\n<parameter=text>\n<p>x</p>\n</div>\n</param>\n</parameter>\n</function>\n</tool_call>",
            calls=(("write_file", '{"path": "a.html", "text": "<p>x</p>\\n</div>\\n</param>"}'),),
        ),
        Sample(
            "plain words for an untyped parameter",
            "<tool_call>\n<function=configure>\n<parameter=data>\nplain words\n</parameter>\n</function>\n</tool_call>",
            calls=(("configure", '{"data": "plain words"}'),),
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _glm45() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "\n".join(
            f"<tool_call>{name}\n"
            + "".join(
                f"<arg_key>{key}</arg_key>\n<arg_value>{_plain(value)}</arg_value>\n" for key, value in values.items()
            )
            + "</tool_call>"
            for name, values in calls
        )

    def compact(calls: Sequence[Call]) -> str:
        return "".join(
            f"<tool_call>{name}"
            + "".join(
                f"<arg_key>{key}</arg_key><arg_value>{_plain(value)}</arg_value>" for key, value in values.items()
            )
            + "</tool_call>"
            for name, values in calls
        )

    writer = Writer(calls, think=("\n<think>", "</think>\n"), markers=("<tool_call>", "</tool_call>"))
    newer = Writer(compact, before="", think=("<think>", "</think>"), open=True)
    spelled = (
        *(replace(sample, name=f"compact: {sample.name}") for sample in _turns(newer)),
        Sample("empty reasoning, text", "\n<think></think>\nHi.", content="Hi."),
        Sample("line end before a call", "\n<think></think>\n" + calls([WEATHER]), calls=arguments([WEATHER])),
        Sample(
            "blank line for no arguments, keys on one line",
            "<tool_call>now\n\n</tool_call>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value><arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
            calls=(("now", "{}"), ("get_weather", '{"city": "Rome", "days": 2}')),
        ),
        Sample(
            "text between and after calls",
            f"First:\n{calls([WEATHER])}\nThen:\n{calls([NOW])}\nDone.",
            content="First:\nThen:\nDone.",
            calls=arguments([WEATHER, NOW]),
        ),
        Sample(
            "line ends around a string are the string's",
            "<tool_call>write_file\n<arg_key>path</arg_key>\n<arg_value>a</arg_value>\n<arg_key>text</arg_key>\n<arg_value>\nx\n</arg_value>\n</tool_call>",
            calls=(("write_file", '{"path": "a", "text": "\\nx\\n"}'),),
        ),
        Sample(
            "plain words for an untyped parameter",
            "<tool_call>configure<arg_key>data</arg_key><arg_value>plain words</arg_value></tool_call>",
            calls=(("configure", '{"data": "plain words"}'),),
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _mistral() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        items = (
            f'{{"name": "{name}", "arguments": {_json(values)}, "id": "aB3dE6gH{number}"}}'
            for number, (name, values) in enumerate(calls)
        )
        return "[TOOL_CALLS][" + ", ".join(items) + "]"

    writer = Writer(calls, before="", markers=("[TOOL_CALLS]",))
    spelled = (
        Sample(
            "space after the marker, no id",
            '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now", "arguments": {}}]',
            calls=arguments([WEATHER, NOW]),
        ),
        Sample(
            "arguments before the name, and missing",
            '[TOOL_CALLS][{"arguments": {"city": "Paris"}, "name": "get_weather", "id": "aB3dE6gH0"}, {"name": "now"}]',
            calls=arguments([WEATHER, NOW]),
        ),
        Sample(
            "arguments byte for byte",
            f'[TOOL_CALLS] [ {{"name":"get_weather","arguments":{_ODD}}} ]',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample("brackets in text", "[1] and [INST] [x]", content="[1] and [INST] [x]"),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer)


def _mistral_v11() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "".join(
            f"[TOOL_CALLS]{name}[CALL_ID]aB3dE6gH{number}[ARGS]{_json(values)}"
            for number, (name, values) in enumerate(calls)
        )

    writer = Writer(calls, before="", markers=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"))
    spelled = (
        Sample(
            "without an id",
            '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f"[TOOL_CALLS]get_weather[CALL_ID]aB3dE6gH0[ARGS]{_ODD}",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '[TOOL_CALLS]get_weather[CALL_ID]aB3dE6gH0[ARGS]{"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer)


def _mistral_v13() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "".join(f"[TOOL_CALLS]{name}[ARGS]{_json(values)}" for name, values in calls)

    writer = Writer(calls, before="", think=("[THINK]", "[/THINK]"), markers=("[TOOL_CALLS]", "[ARGS]"))
    spelled = (
        Sample(
            "arguments byte for byte",
            f"[TOOL_CALLS]get_weather[ARGS]{_ODD}",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '[THINK]Hm.[/THINK][TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[ARGS]{"city": "Par',
            "Hm.",
            calls=(("now", "{}"), ("get_weather", '{"city": "Par')),
        ),
    )
    return FormatCorpus("mistral", (*_turns(writer), *spelled), writer)


_DS_BEGIN, _DS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_DS_CALL, _DS_SEP, _DS_CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def _deepseek_v3() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        body = "\n".join(
            f"{_DS_CALL}function{_DS_SEP}{name}\n```json\n{_json(values)}\n```{_DS_CLOSE}" for name, values in calls
        )
        return _DS_BEGIN + body + _DS_END

    writer = Writer(calls, before="", think=("<think>\n", "\n</think>\n\n"), open=True, markers=(_DS_BEGIN,))
    spelled = (
        Sample("closed: reasoning, text", "<think>\nHm.\n</think>\n\nHi.", "Hm.", "Hi."),
        Sample(
            "arguments byte for byte",
            f"{_DS_BEGIN}{_DS_CALL}function{_DS_SEP}get_weather\n```json\n{_ODD}\n```{_DS_CLOSE}{_DS_END}",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            f'{_DS_BEGIN}{_DS_CALL}function{_DS_SEP}get_weather\n```json\n{{"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample(
            "a fence in the text",
            'As JSON:\n```json\n{"city": "Paris"}\n```\n',
            content='As JSON:\n```json\n{"city": "Paris"}\n```\n',
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer)


def _deepseek_v31() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        body = "".join(f"{_DS_CALL}{name}{_DS_SEP}{_json(values)}{_DS_CLOSE}" for name, values in calls)
        return _DS_BEGIN + body + _DS_END

    writer = Writer(calls, before="", think=("<think>", "</think>"), open=True, markers=(_DS_BEGIN,))
    spelled = (
        Sample(
            "arguments byte for byte",
            f"{_DS_BEGIN}{_DS_CALL}get_weather{_DS_SEP}{_ODD}{_DS_CLOSE}{_DS_END}",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            f'{_DS_BEGIN}{_DS_CALL}now{_DS_SEP}{{}}{_DS_CLOSE}{_DS_CALL}get_weather{_DS_SEP}{{"city": "Par',
            calls=(("now", "{}"), ("get_weather", '{"city": "Par')),
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer)


def _dsml(block: str, nothing: str) -> FormatCorpus:
    """DeepSeek's markup language. nothing: the text of a call without parameters."""

    def parameter(key: str, value: object) -> str:
        is_text = "true" if isinstance(value, str) else "false"
        return f'<｜DSML｜parameter name="{key}" string="{is_text}">{_plain(value)}</｜DSML｜parameter>\n'

    def calls(calls: Sequence[Call]) -> str:
        body = "".join(
            f'<｜DSML｜invoke name="{name}">\n'
            + ("".join(parameter(key, value) for key, value in values.items()) or nothing)
            + "</｜DSML｜invoke>\n"
            for name, values in calls
        )
        return f"<｜DSML｜{block}>\n{body}</｜DSML｜{block}>"

    writer = Writer(
        calls,
        before="\n\n",
        think=("<think>", "</think>"),
        open=True,
        markers=(f"<｜DSML｜{block}>", "</｜DSML｜invoke>"),
    )
    spelled = (
        Sample(
            "blank line before a call",
            "Hm.</think>\n\n" + calls([WEATHER]),
            "Hm.",
            calls=arguments([WEATHER]),
            open=True,
        ),
        Sample(
            "the mark says what is text, whatever it looks like",
            f'<｜DSML｜{block}>\n<｜DSML｜invoke name="configure">\n<｜DSML｜parameter name="data" string="true">12</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
            f'<｜DSML｜invoke name="configure">\n<｜DSML｜parameter name="data" string="false">12</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜{block}>',
            calls=(("configure", '{"data": "12"}'), ("configure", '{"data": 12}')),
        ),
        Sample(
            "line ends around a string are the string's",
            f'<｜DSML｜{block}>\n<｜DSML｜invoke name="write_file">\n<｜DSML｜parameter name="path" string="true">a</｜DSML｜parameter>\n<｜DSML｜parameter name="text" string="true">\nx\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜{block}>',
            calls=(("write_file", '{"path": "a", "text": "\\nx\\n"}'),),
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _kimi_k2() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        body = "".join(
            f"<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{_json(values)}<|tool_call_end|>"
            for number, (name, values) in enumerate(calls)
        )
        return f"<|tool_calls_section_begin|>{body}<|tool_calls_section_end|>"

    writer = Writer(
        calls, before="", think=("<think>", "</think>"), markers=("<|tool_calls_section_begin|>", "<|tool_call_begin|>")
    )
    spelled = (
        Sample(
            "numbers go on from earlier turns, spaces between markers",
            '<|tool_calls_section_begin|> <|tool_call_begin|> functions.get_weather:12 <|tool_call_argument_begin|> {"city": "Paris"} <|tool_call_end|> <|tool_calls_section_end|>',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f"<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{_ODD}<|tool_call_end|><|tool_calls_section_end|>",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample("open: reasoning, call", "Hm.</think>" + calls([NOW]), "Hm.", calls=arguments([NOW]), open=True),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer)


def _openai() -> FormatCorpus:
    """Harmony: messages in channels. The prompt ends in `<|start|>assistant`, which later messages repeat."""
    analysis, final, commentary = (
        f"<|channel|>{channel}<|message|>" for channel in ("analysis", "final", "commentary")
    )
    again = "<|end|><|start|>assistant"

    def call(call: Call) -> str:
        return f"<|channel|>commentary to=functions.{call[0]} <|constrain|>json<|message|>{_json(call[1])}"

    samples = (
        Sample("text", final + TEXT, content=TEXT),
        Sample("one call", call(WEATHER), calls=arguments([WEATHER])),
        Sample("call without arguments", call(NOW), calls=arguments([NOW])),
        Sample("reasoning, text", analysis + REASONING + again + final + TEXT, REASONING, TEXT),
        Sample("reasoning, call", analysis + REASONING + again + call(TYPED), REASONING, calls=arguments([TYPED])),
        Sample(
            "reasoning, preamble, call",
            analysis + "Hm." + again + commentary + "Let me look." + again + call(SEARCH),
            "Hm.",
            "Let me look.",
            arguments([SEARCH]),
        ),
        Sample(
            "recipient before the channel, as the template writes it",
            analysis
            + 'Hm.<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}',
            "Hm.",
            calls=arguments([WEATHER]),
        ),
        Sample(
            "recipient before the channel at the beginning",
            ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "recipient without a content type",
            '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "no space before the content type, as xgrammar's tag has it",
            '<|channel|>commentary to=functions.get_weather<|constrain|>json<|message|>{"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "recipient before the channel, marked content type",
            ' to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "call in the analysis channel",
            '<|channel|>analysis to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "several calls",
            call(WEATHER) + "<|call|><|start|>assistant" + call(NOW),
            calls=arguments([WEATHER, NOW]),
        ),
        Sample("string with lines, quotes, markup and emoji", call(LINES), calls=arguments([LINES])),
        Sample("spaces around strings", call(SPACES), calls=arguments([SPACES])),
        Sample("null, enum and untyped", call(OPTIONS), calls=arguments([OPTIONS])),
        Sample(
            "arguments byte for byte",
            f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{_ODD}",
            calls=(("get_weather", _ODD),),
        ),
        Sample("reasoning never closes", analysis + REASONING, REASONING),
        Sample("text is cut", final + "Sunny, 2", content="Sunny, 2"),
        Sample(
            "cut in the arguments",
            '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample(
            "halves of markers",
            final + "Not a message: <|channel| <|message <|en |> |end|> and <b>",
            content="Not a message: <|channel| <|message <|en |> |end|> and <b>",
        ),
        Sample("line ends around the text", final + "\nA\n\nB\n", content="\nA\n\nB\n"),
    )
    return FormatCorpus("openai", samples, None)


def _minimax_m2() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        body = "".join(
            f'<invoke name="{name}">\n'
            + "".join(f'<parameter name="{key}">{_plain(value)}</parameter>\n' for key, value in values.items())
            + "</invoke>\n"
            for name, values in calls
        )
        return f"<minimax:tool_call>\n{body}</minimax:tool_call>"

    writer = Writer(
        calls,
        think=("<think>\n", "\n</think>\n\n"),
        open=True,
        markers=("<minimax:tool_call>", "<invoke name=", "</minimax:tool_call>"),
    )
    one, two = calls([WEATHER]), calls([NOW])
    spelled = (
        Sample("the opening tag once more", "<think>\nHm.\n</think>\n\nHi.", "Hm.", "Hi.", open=True),
        Sample("empty reasoning, call", "\n</think>\n\n\n\n" + one, calls=arguments([WEATHER]), open=True),
        Sample(
            "two blocks with text between",
            f"First:\n{one}\nThen:\n{two}\nDone.",
            content="First:\nThen:\nDone.",
            calls=arguments([WEATHER, NOW]),
        ),
        Sample(
            "the call's tags without the block's stay text",
            '<invoke name="now">\n</invoke>',
            content='<invoke name="now">\n</invoke>',
        ),
        Sample(
            "line ends around a string are the string's",
            '<minimax:tool_call>\n<invoke name="write_file">\n<parameter name="path">a</parameter>\n<parameter name="text">\nx\n</parameter>\n</invoke>\n</minimax:tool_call>',
            calls=(("write_file", '{"path": "a", "text": "\\nx\\n"}'),),
        ),
        Sample(
            "plain words for an untyped parameter",
            '<minimax:tool_call>\n<invoke name="configure">\n<parameter name="data">plain words</parameter>\n</invoke>\n</minimax:tool_call>',
            calls=(("configure", '{"data": "plain words"}'),),
        ),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _gemma4_value(value: object) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_gemma4_value(item)}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_gemma4_value, value)) + "]"
    return json.dumps(value)


def _gemma4() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "".join(f"<|tool_call>call:{name}{_gemma4_value(values)}<tool_call|>" for name, values in calls)

    writer = Writer(
        calls, before="", think=("<|channel>thought\n", "\n<channel|>"), markers=("<|tool_call>", "<|channel>")
    )
    spelled = (
        Sample("no line end before the closing marker", "<|channel>thought\nHm.<channel|>Hi.", "Hm.", "Hi."),
        Sample("empty reasoning, text", "<|channel>thought\n<channel|>Hi.", content="Hi."),
        Sample(
            "text after calls",
            calls([WEATHER]) + "Done.",
            content="Done.",
            calls=arguments([WEATHER]),
        ),
        Sample(
            "quoted keys and Python's None",
            '<|tool_call>call:configure{<|"|>data<|"|>:{<|"|>a b<|"|>:[{c:<|"|>,}]<|"|>}]},timeout:None}<tool_call|>',
            calls=(("configure", '{"data": {"a b": [{"c": ",}]"}]}, "timeout": null}'),),
        ),
        Sample(
            "numbers, constants and empty values",
            '<|tool_call>call:configure{data:{a:[],b:{},c:<|"|><|"|>,d:-1.5e3,e:true,f:false,g:null}}<tool_call|>',
            calls=(
                ("configure", '{"data": {"a": [], "b": {}, "c": "", "d": -1500.0, "e": true, "f": false, "g": null}}'),
            ),
        ),
    )
    return FormatCorpus("gemma4", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _python_call(name: str, values: Mapping[str, Any], write: Callable[[object], str] = repr) -> str:
    return f"{name}({', '.join(f'{key}={write(value)}' for key, value in values.items())})"


def _pythonic() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "[" + ", ".join(_python_call(name, values) for name, values in calls) + "]"

    writer = Writer(calls, whole=True)
    spelled = (
        Sample(
            "double quotes, JSON's spelling of constants",
            '[get_weather(city="Rome", metric=true), configure(timeout=null, data={"a": [false, None]})]',
            calls=(
                ("get_weather", '{"city": "Rome", "metric": true}'),
                ("configure", '{"timeout": null, "data": {"a": [false, null]}}'),
            ),
        ),
        Sample(
            "between Python tags",
            "<|python_start|>[get_weather(city='Paris')]<|python_end|>",
            calls=arguments([WEATHER]),
        ),
        Sample(
            "lines between calls",
            "[\n  get_weather(\n    city='Paris'\n  ),\n  now()\n]\n",
            calls=arguments([WEATHER, NOW]),
        ),
        Sample("a list", "[1, 2, 3] is sorted.", content="[1, 2, 3] is sorted."),
        Sample("a link", "[now](https://x.org/now) is it.", content="[now](https://x.org/now) is it."),
        Sample("text that ends like a call", "Use [now()]", content="Use [now()]"),
        Sample("half a call", "[get_weather", content="[get_weather"),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer, exact_arguments=False)


def _lfm2() -> FormatCorpus:
    def write(value: object) -> str:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else repr(value)

    def calls(calls: Sequence[Call]) -> str:
        body = ", ".join(_python_call(name, values, write) for name, values in calls)
        return f"<|tool_call_start|>[{body}]<|tool_call_end|>"

    writer = Writer(
        calls, before="", think=("<think>", "</think>"), markers=("<|tool_call_start|>", "<|tool_call_end|>")
    )
    spelled = (
        Sample(
            "text after calls",
            '<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>Checking the weather.',
            content="Checking the weather.",
            calls=arguments([WEATHER]),
        ),
        Sample(
            "two blocks",
            calls([WEATHER]) + "\n" + calls([NOW]),
            calls=arguments([WEATHER, NOW]),
        ),
        Sample("the list alone stays text", "[now()]", content="[now()]"),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _llama3_json() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "; ".join(f'{{"name": "{name}", "parameters": {_json(values)}}}' for name, values in calls)

    writer = Writer(calls, whole=True)
    spelled = (
        Sample(
            "the Python tag",
            '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "type and arguments",
            '{"type": "function", "name": "get_weather", "arguments": {"city": "Paris"}}',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f'{{"name":"get_weather","parameters":{_ODD}}}',
            calls=(("get_weather", _ODD),),
        ),
        Sample("another object", '{"name": "Bob", "age": 3}', content='{"name": "Bob", "age": 3}'),
        Sample("text with braces", "{x} and [1] are sets.", content="{x} and [1] are sets."),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer)


def _phi4_mini_json() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "functools" + _json_array(calls)

    writer = Writer(calls, before=" ", markers=("functools[{",))
    spelled = (
        Sample(
            "parameters instead of arguments",
            'functools[{"name": "get_weather", "parameters": {"city": "Paris"}}]',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f'functools[ {{"name":"get_weather","arguments":{_ODD}}} ]',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            'functools[{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample(
            "Python's module",
            "Import functools and use functools.partial or functools[0].",
            content="Import functools and use functools.partial or functools[0].",
        ),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer)


def _granite() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "<|tool_call|>" + _json_array(calls)

    writer = Writer(calls, before="", markers=("<|tool_call|>",))
    spelled = (
        Sample(
            "space after the marker",
            '<|tool_call|> [{"name": "get_weather", "arguments": {"city": "Paris"}}]',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f'<|tool_call|>[{{"name":"get_weather","arguments":{_ODD}}}]',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample(
            "reasoning, response",
            f"<think>{REASONING}</think><response>{TEXT}</response>",
            REASONING,
            TEXT,
        ),
        Sample("response is cut", "<think>Hm.</think><response>Sunny, 2", "Hm.", "Sunny, 2"),
        Sample("reasoning never closes", "<think>Hm, well", "Hm, well"),
    )
    return FormatCorpus("granite", (*_turns(writer), *spelled), writer)


def _seed_oss() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "\n".join(
            f"<seed:tool_call>\n<function={name}>\n"
            + "".join(f"<parameter={key}>{value}</parameter>\n" for key, value in values.items())
            + "</function>\n</seed:tool_call>"
            for name, values in calls
        )

    writer = Writer(
        calls,
        before="\n\n",
        think=("<seed:think>", "</seed:think>\n"),
        markers=("<seed:tool_call>", "</seed:tool_call>"),
    )
    spelled = (
        Sample("line ends inside the reasoning's tags", "<seed:think>\nHm.\n</seed:think>\nHi.", "Hm.", "Hi."),
        Sample(
            "JSON's spelling of values",
            "<seed:tool_call>\n<function=search>\n<parameter=query>a</parameter>\n<parameter=filters>"
            '{"sale": true, "price": {"min": 1}}</parameter>\n<parameter=tags>["x", "y z"]</parameter>\n</function>\n</seed:tool_call>',
            calls=(("search", '{"query": "a", "filters": {"sale": true, "price": {"min": 1}}, "tags": ["x", "y z"]}'),),
        ),
        Sample(
            "tags without a call",
            "Write <tool_call>...</tool_call> or <function=x> around it.",
            content="Write <tool_call>...</tool_call> or <function=x> around it.",
        ),
    )
    return FormatCorpus("seed", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _nemotron_json() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return f"<TOOLCALL>{_json_array(calls)}</TOOLCALL>"

    writer = Writer(calls, think=("<think>\n", "\n</think>\n\n"), open=True, markers=("<TOOLCALL>", "</TOOLCALL>"))
    spelled = (
        Sample(
            "arguments byte for byte",
            f'<TOOLCALL>[ {{"name":"get_weather","arguments":{_ODD}}} ]</TOOLCALL>',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<TOOLCALL>[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Par',
            calls=(("now", "{}"), ("get_weather", '{"city": "Par')),
        ),
        Sample("tags without a call", "<TOOLCALL>[1, 2]</TOOLCALL>", content="<TOOLCALL>[1, 2]</TOOLCALL>"),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer)


def _cohere_command() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        items = (
            f'    {{"tool_call_id": "{number}", "tool_name": "{name}", "parameters": {_json(values)}}}'
            for number, (name, values) in enumerate(calls)
        )
        return "<|START_ACTION|>[\n" + ",\n".join(items) + "\n]<|END_ACTION|>"

    writer = Writer(
        calls,
        think=("<|START_THINKING|>", "<|END_THINKING|>"),
        wrap=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        markers=("<|START_ACTION|>",),
        whole=True,
    )
    spelled = (
        Sample("open: reasoning, call", "Hm.<|END_THINKING|>" + calls([NOW]), "Hm.", calls=arguments([NOW]), open=True),
        Sample(
            "open: reasoning, text of newer models",
            "Hm.<|END_THINKING|><|START_TEXT|>Hi.<|END_TEXT|>",
            "Hm.",
            "Hi.",
            open=True,
        ),
        Sample("response is cut", "<|START_RESPONSE|>Sunny, 2", content="Sunny, 2"),
        Sample("text without markers", "Hi.", content="Hi."),
        Sample(
            "arguments byte for byte",
            f'<|START_ACTION|>[{{"tool_call_id":"0","tool_name":"get_weather","parameters":{_ODD}}}]<|END_ACTION|>',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
    )
    return FormatCorpus("cohere", (*_turns(writer), *spelled), writer)


def _hy3() -> FormatCorpus:
    """The tags end in `:opensource`, which belongs to the tokens' names."""

    def calls(calls: Sequence[Call]) -> str:
        body = "".join(
            f"<tool_call:opensource>{name}<tool_sep:opensource>\n"
            + "".join(
                f"<arg_key:opensource>{key}</arg_key:opensource>\n<arg_value:opensource>{_plain(value)}</arg_value:opensource>\n"
                for key, value in values.items()
            )
            + "</tool_call:opensource>\n"
            for name, values in calls
        )
        return f"<tool_calls:opensource>\n{body}</tool_calls:opensource>"

    writer = Writer(
        calls,
        before="",
        think=("<think:opensource>", "</think:opensource>"),
        markers=("<tool_calls:opensource>", "<tool_call:opensource>"),
    )
    spelled = (
        Sample("open: reasoning, text", "Hm.</think:opensource>Hi.", "Hm.", "Hi.", open=True),
        Sample(
            "open: reasoning, call",
            "Hm.</think:opensource>" + calls([NOW]),
            "Hm.",
            calls=arguments([NOW]),
            open=True,
        ),
        Sample("empty reasoning, text", "<think:opensource></think:opensource>Hi.", content="Hi."),
    )
    return FormatCorpus("hy3", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _minimax_m1() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        body = "".join(f'{{"name": "{name}", "arguments": {_json(values)}}}\n' for name, values in calls)
        return f"<tool_calls>\n{body}</tool_calls>"

    writer = Writer(calls, think=("<think>\n", "\n</think>\n\n"), markers=("<tool_calls>", "</tool_calls>"))
    spelled = (
        Sample(
            "arguments byte for byte",
            f'<tool_calls>\n{{"name":"get_weather","arguments":{_ODD}}}\n</tool_calls>',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<tool_calls>\n{"name": "now", "arguments": {}}\n{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("now", "{}"), ("get_weather", '{"city": "Par')),
        ),
        Sample("tags without a call", "Write <tool_calls> </tool_calls>.", content="Write <tool_calls> </tool_calls>."),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer)


_M3 = "]<]minimax[>["


def _minimax_m3_element(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        body = "".join(_minimax_m3_element(key, item) for key, item in value.items())
    elif isinstance(value, list):
        body = "".join(_minimax_m3_element("item", item) for item in value)
    else:
        body = _plain(value)
    return f"{_M3}<{name}>{body}{_M3}</{name}>"


def _minimax_m3() -> FormatCorpus:
    """Objects and arrays are nested elements, the items of an array are called `item`; a null is left out."""

    def calls(calls: Sequence[Call]) -> str:
        body = "".join(
            f'{_M3}<invoke name="{name}">'
            + "".join(_minimax_m3_element(key, value) for key, value in values.items())
            + f"{_M3}</invoke>\n"
            for name, values in calls
        )
        return f"{_M3}<tool_call>\n{body}{_M3}</tool_call>"

    writer = Writer(
        calls,
        before="",
        think=("<mm:think>", "</mm:think>"),
        markers=(f"{_M3}<tool_call>",),
        options=("configure", {"mode": "slow", "level": 3, "owner": "ann"}),
    )
    spelled = (
        Sample("open: reasoning, text", "Hm.</mm:think>Hi.", "Hm.", "Hi.", open=True),
        Sample("open: reasoning, call", "Hm.</mm:think>" + calls([NOW]), "Hm.", calls=arguments([NOW]), open=True),
        Sample("empty reasoning, text", "</mm:think>Hi.", content="Hi.", open=True),
        Sample(
            "the closing tag alone, as the template writes a turn without reasoning", "</mm:think>Hi.", content="Hi."
        ),
        Sample(
            "an array of one item, an object of one member",
            calls([("search", {"query": "x", "tags": ["one"], "filters": {"sizes": [40]}})]),
            calls=arguments([("search", {"query": "x", "tags": ["one"], "filters": {"sizes": [40]}})]),
        ),
        Sample(
            "tags without the prefix stay text",
            '<tool_call>\n<invoke name="now"></invoke>\n</tool_call>',
            content='<tool_call>\n<invoke name="now"></invoke>\n</tool_call>',
        ),
        Sample(
            "line ends between elements",
            f'{_M3}<tool_call>\n{_M3}<invoke name="search">\n{_M3}<query>x{_M3}</query>\n{_M3}<tags>\n{_M3}<item>a{_M3}</item>\n{_M3}</tags>\n{_M3}</invoke>\n{_M3}</tool_call>',
            calls=(("search", '{"query": "x", "tags": ["a"]}'),),
        ),
    )
    return FormatCorpus("minimax_m3", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _kimi_k3() -> FormatCorpus:
    def opened(tag: str) -> str:
        return f"<|open|>{tag}<|sep|>"

    def closed(tag: str) -> str:
        return f"<|close|>{tag}<|sep|>"

    def kind(value: object) -> str:
        if value is None:
            return "null"
        for types, name in ((bool, "boolean"), (int | float, "number"), (str, "string"), (list, "array")):
            if isinstance(value, types):
                return name
        return "object"

    def argument(key: str, value: object) -> str:
        return opened(f'argument key="{key}" type="{kind(value)}"') + _plain(value) + closed("argument")

    def calls(calls: Sequence[Call]) -> str:
        body = "".join(
            opened(f'call tool="{name}" index="{number}"')
            + "".join(argument(key, value) for key, value in values.items())
            + closed("call")
            for number, (name, values) in enumerate(calls, 1)
        )
        return opened("tools") + body + closed("tools")

    writer = Writer(
        calls,
        before="",
        think=(opened("think"), closed("think")),
        open=True,
        wrap=(opened("response"), closed("response")),
        end=closed("message"),
        half="<|close",
    )
    spelled = (
        Sample(
            "empty response before calls",
            "Hm." + closed("think") + opened("response") + closed("response") + calls([WEATHER]) + closed("message"),
            "Hm.",
            calls=arguments([WEATHER]),
            open=True,
        ),
        Sample(
            "inside the response from the beginning, as without thinking",
            "Hi." + closed("response") + closed("message"),
            content="Hi.",
        ),
        Sample(
            "the mark says what is text, whatever it looks like",
            opened("tools")
            + opened('call tool="configure" index="1"')
            + opened('argument key="data" type="string"')
            + "12"
            + closed("argument")
            + opened('argument key="a &quot;b&quot; &amp; c" type="number"')
            + "12"
            + closed("argument")
            + closed("call")
            + closed("tools")
            + closed("message"),
            calls=(("configure", '{"data": "12", "a \\"b\\" & c": 12}'),),
        ),
        Sample("response is cut", opened("response") + "Sunny, 2", content="Sunny, 2"),
        Sample(
            "halves of markers",
            opened("response") + "Not a tag: <|open <|clos |sep|> call tool=" + closed("response"),
            content="Not a tag: <|open <|clos |sep|> call tool=",
        ),
    )
    return FormatCorpus("kimi_k3", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _apriel() -> FormatCorpus:
    """The reasoning has words for tags; the prompt of version 1.6 ends with the opening ones."""

    def calls(calls: Sequence[Call]) -> str:
        return f"<tool_calls>{_json_array(calls)}</tool_calls>"

    writer = Writer(
        calls,
        think=("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
        open=True,
        markers=("<tool_calls>",),
    )
    spelled = (
        Sample(
            "closed: reasoning, text with an end marker",
            f"Here are my reasoning steps:\n{REASONING}\n[BEGIN FINAL RESPONSE]\n{TEXT}\n[END FINAL RESPONSE]",
            REASONING,
            TEXT,
        ),
        Sample(
            "closed: reasoning, call",
            "Here are my reasoning steps:\nHm.\n[BEGIN FINAL RESPONSE]\n" + calls([NOW]),
            "Hm.",
            calls=arguments([NOW]),
        ),
        Sample(
            "line end before a call, with an id",
            '\n<tool_calls>[{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "call_0"}]</tool_calls>',
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f'<tool_calls>[ {{"name":"get_weather","arguments":{_ODD}}} ]</tool_calls>',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<tool_calls>[{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
    )
    return FormatCorpus("apriel", (*_turns(writer), *spelled), writer)


def _hunyuan_a13b() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return f"<tool_calls>{_json_array(calls)}</tool_calls>"

    writer = Writer(
        calls,
        think=("<think>\n", "\n</think>\n"),
        wrap=("<answer>\n", "\n</answer>"),
        markers=("<tool_calls>",),
        whole=True,
    )
    spelled = (
        Sample("text without tags", "Hi.", content="Hi."),
        Sample("answer is cut", "<think>\nHm.\n</think>\n<answer>\nSunny, 2", "Hm.", "Sunny, 2"),
        Sample("empty reasoning, text", "<think>\n\n</think>\n<answer>\nHi.\n</answer>", content="Hi."),
        Sample(
            "text, call without tags",
            "Let me look.\n" + calls([WEATHER]),
            content="Let me look.",
            calls=arguments([WEATHER]),
        ),
        Sample(
            "arguments byte for byte",
            f'<tool_calls>[ {{"name":"get_weather","arguments":{_ODD}}} ]</tool_calls>',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<tool_calls>[{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
    )
    return FormatCorpus("hunyuan", (*_turns(writer), *spelled), writer)


def _solar() -> FormatCorpus:
    """Messages of one kind each. The prompt ends in `<|begin|>assistant`, which later messages repeat."""

    def calls(calls: Sequence[Call]) -> str:
        return "<|tool_calls|>" + "".join(
            f"<|tool_call:begin|>aB3dE6gH{number}<|tool_call:name|>{name}<|tool_call:args|>{_json(values)}<|tool_call:end|>"
            for number, (name, values) in enumerate(calls)
        )

    writer = Writer(
        calls,
        think=("<|think|>", "<|end|><|begin|>assistant"),
        wrap=("<|content|>", ""),
        markers=("<|tool_calls|>",),
        half="<|end|",
        whole=True,
        call_ends_reasoning=False,
    )
    spelled = (
        Sample(
            "arguments byte for byte",
            f"<|tool_calls|><|tool_call:begin|>aB3<|tool_call:name|>get_weather<|tool_call:args|>{_ODD}<|tool_call:end|>",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<|tool_calls|><|tool_call:begin|>aB3<|tool_call:name|>get_weather<|tool_call:args|>{"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample("empty reasoning, text", "<|think|><|end|><|begin|>assistant<|content|>Hi.", content="Hi."),
    )
    return FormatCorpus("solar", (*_turns(writer), *spelled), writer)


def _minicpm5() -> FormatCorpus:
    """Strings with markup or lines are in CDATA blocks; other values have Python's spelling."""

    def write(value: object) -> str:
        if isinstance(value, str) and any(char in value for char in "<&\n"):
            return f"<![CDATA[{value}]]>"
        return str(value)

    def calls(calls: Sequence[Call]) -> str:
        return "\n".join(
            f'<function name="{name}">'
            + "".join(f'<param name="{key}">{write(value)}</param>' for key, value in values.items())
            + "</function>"
            for name, values in calls
        )

    writer = Writer(calls, think=("<think>\n", "\n</think>\n\n"), markers=('<function name="', "</function>"))
    spelled = (
        Sample(
            "JSON's spelling of values",
            '<function name="search"><param name="query">a</param><param name="filters">{"sale": true, "price": {"min": 1}}</param><param name="tags">["x", "y z"]</param></function>',
            calls=(("search", '{"query": "a", "filters": {"sale": true, "price": {"min": 1}}, "tags": ["x", "y z"]}'),),
        ),
        Sample(
            "closing tags in a CDATA block",
            '<function name="write_file"><param name="path">a</param><param name="text"><![CDATA[</param></function>\n]]></param></function>',
            calls=(("write_file", '{"path": "a", "text": "</param></function>\\n"}'),),
        ),
        Sample(
            "text between calls",
            f"First:\n{calls([WEATHER])}\nThen:\n{calls([NOW])}",
            content="First:\nThen:",
            calls=arguments([WEATHER, NOW]),
        ),
        Sample("open: reasoning, call", "Hm.\n</think>\n\n" + calls([NOW]), "Hm.", calls=arguments([NOW]), open=True),
        Sample("other markup", "Use <function> and <param>.", content="Use <function> and <param>."),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


def _gigachat3() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        [(name, values)] = calls
        return f'<|function_call|>{{"name": "{name}", "arguments": {_json(values)}}}'

    writer = Writer(calls, before="", markers=("<|function_call|>",), single=True)
    spelled = (
        Sample(
            "version 3: a message of its own",
            'Let me look.<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "get_weather", "arguments": {"city": "Paris"}}',
            content="Let me look.",
            calls=arguments([WEATHER]),
        ),
        Sample(
            "version 3: no text before",
            '<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "now", "arguments": {}}',
            calls=arguments([NOW]),
        ),
        Sample("words of the marker", "A function call, then.", content="A function call, then."),
        Sample(
            "arguments byte for byte",
            f'<|function_call|>{{"name":"get_weather","arguments":{_ODD}}}',
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<|function_call|>{"name": "get_weather", "arguments": {"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer)


def _functionary_v31() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        return "".join(f"<function={name}>{_json(values)}</function>" for name, values in calls)

    writer = Writer(calls, before="", markers=("<function=", "</function>"))
    spelled = (
        Sample(
            "arguments byte for byte",
            f"<function=get_weather>{_ODD}</function>",
            calls=(("get_weather", _ODD),),
        ),
        Sample(
            "cut in the arguments",
            '<function=get_weather>{"city": "Par',
            calls=(("get_weather", '{"city": "Par'),),
        ),
        Sample(
            "closing tag inside a string",
            '<function=write_file>{"path": "a", "text": "</function>"}</function>',
            calls=(("write_file", '{"path": "a", "text": "</function>"}'),),
        ),
    )
    return FormatCorpus(None, (*_turns(writer), *spelled), writer)


def _olmo3() -> FormatCorpus:
    def calls(calls: Sequence[Call]) -> str:
        body = "\n".join(_python_call(name, values) for name, values in calls)
        return f"<function_calls>{body}</function_calls>"

    writer = Writer(
        calls, think=("<think>", "</think>\n"), open=True, markers=("<function_calls>", "</function_calls>")
    )
    spelled = (
        Sample(
            "lines around calls, JSON's spelling of constants",
            '<function_calls>\nget_weather(city="Rome", metric=true)\nconfigure(timeout=null)\n</function_calls>',
            calls=(("get_weather", '{"city": "Rome", "metric": true}'), ("configure", '{"timeout": null}')),
        ),
        Sample("the call alone stays text", "now()", content="now()"),
    )
    return FormatCorpus("think", (*_turns(writer), *spelled), writer, exact_arguments=False)


CORPUS: Mapping[str, FormatCorpus] = {
    "hermes": _hermes(),
    "qwen3_coder": _qwen3_coder(),
    "glm45": _glm45(),
    "mistral": _mistral(),
    "mistral_v11": _mistral_v11(),
    "mistral_v13": _mistral_v13(),
    "deepseek_v3": _deepseek_v3(),
    "deepseek_v31": _deepseek_v31(),
    "deepseek_v32": _dsml("function_calls", ""),
    "deepseek_v4": _dsml("tool_calls", "\n"),
    "kimi_k2": _kimi_k2(),
    "openai": _openai(),
    "minimax_m2": _minimax_m2(),
    "gemma4": _gemma4(),
    "pythonic": _pythonic(),
    "lfm2": _lfm2(),
    "llama3_json": _llama3_json(),
    "phi4_mini_json": _phi4_mini_json(),
    "granite": _granite(),
    "seed_oss": _seed_oss(),
    "nemotron_json": _nemotron_json(),
    "cohere_command": _cohere_command(),
    "hy3": _hy3(),
    "minimax_m1": _minimax_m1(),
    "minimax_m3": _minimax_m3(),
    "kimi_k3": _kimi_k3(),
    "apriel": _apriel(),
    "hunyuan_a13b": _hunyuan_a13b(),
    "solar": _solar(),
    "minicpm5": _minicpm5(),
    "gigachat3": _gigachat3(),
    "functionary_v31": _functionary_v31(),
    "olmo3": _olmo3(),
}
