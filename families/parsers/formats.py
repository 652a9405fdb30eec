# SPDX-License-Identifier: Apache-2.0
"""How models write tool calls and reasoning: one table of each, and the names that vLLM's options have for them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from common.chat.text_arguments import TextArguments
from common.checks import PositionError
from common.command_line import did_you_mean
from families.parsers.arguments import xml_value
from families.parsers.call_prefix import JSON_PREFIXES
from families.parsers.events import Parser
from families.parsers.gemma import GemmaCalls
from families.parsers.gemma4_calls import QUOTE, read_gemma4_calls
from families.parsers.harmony import MARKERS as HARMONY_MARKERS
from families.parsers.held_calls import HeldCalls, WholeAnswer
from families.parsers.json_calls import JsonCalls
from families.parsers.named_calls import NamedCalls
from families.parsers.parameters import Parameters
from families.parsers.whole_calls import read_json_calls, read_python_calls


class Markup(Protocol):
    """How calls are written in an answer."""

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of the markup, of which the tokens must reach the parser."""
        ...

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts that calls begin with, if no other text does."""
        ...

    def parser(self, text_arguments: TextArguments) -> Parser:
        """A parser of one answer. text_arguments: the parameters of functions that take text only."""
        ...


@dataclass(frozen=True, slots=True)
class CallForm:
    """The text of one call, for guided decoding: `begin` name `middle` arguments `end`.

    One of these texts may hold `{free}`, for which the model writes what the pattern `free` matches: a number or an id.
    style: the notation of the arguments, a style of xgrammar's `json_schema` format. All but "json" allow whitespace
    at both ends of the arguments.
    trigger: text that only a call starts with; None if a call looks like any JSON.
    separator: text between several calls; None if the family makes one call at a time.
    brackets: text around several calls. around: text around all calls, be it one or several.
    leads: texts that may come before the calls of an answer that has nothing else. tail: text that may end it.
    """

    begin: str
    middle: str
    end: str
    style: str = "json"
    trigger: str | None = None
    separator: str | None = None
    brackets: tuple[str, str] | None = None
    around: tuple[str, str] | None = None
    free: str = r"\d+"
    leads: tuple[str, ...] = ()
    tail: str = ""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One format of tool calls.

    markup: None if the reasoning's parser reads the calls too. form: None if guided decoding cannot write them.
    """

    markup: Markup | None
    form: CallForm | None


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """One format of reasoning: `open` reasoning `close` `after` answer.

    after: line ends here are the most that a model writes.
    before_answer, after_answer: text around content, which calls do not have. Models may leave it out, unless the
    answer is a series of messages.
    dropped: markup of the content that clients do not see.
    channels: the answer is a series of messages with channels (`HarmonyParser`).
    """

    open: str
    close: str
    after: str = "\n\n"
    before_answer: str = ""
    after_answer: str = ""
    dropped: tuple[str, ...] = ()
    channels: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of the markup."""
        return HARMONY_MARKERS if self.channels else (self.open, self.close, *self.dropped)


def _array(open_tag: str, close_tag: str = "", also: tuple[str, ...] = ()) -> ToolFormat:
    """One array of objects with name and arguments between tags. also: see JsonCalls."""
    form = CallForm(
        begin='{"name": "',
        middle='", "arguments": ',
        end="}",
        trigger=open_tag,
        separator=", ",
        around=(f"{open_tag}[", f"]{close_tag}"),
    )
    return ToolFormat(JsonCalls(open_tag, close_tag, also), form)


def _function_xml(section: str) -> ToolFormat:
    """`<function=f>` in an element for each call, with `<parameter=key>` for each argument. section: that element."""
    opening, closing = f"<{section}>", f"</{section}>"
    markup = NamedCalls(
        "<function=",
        (">",),
        "</function>",
        opens=(opening,),
        closes=(closing,),
        parameters=Parameters("<parameter=", ">", "</parameter>", trim=True),
        bare=True,
    )
    form = CallForm(
        f"{opening}\n<function=", ">\n", f"</function>\n{closing}", "qwen_xml", trigger=opening, separator="\n"
    )
    return ToolFormat(markup, form)


def _invoke(prefix: str, section: str, style: str, lead: str) -> ToolFormat:
    """`<invoke name="f">` with `<parameter name="key">` for each argument. prefix: of the tags' names."""
    begin, close = f'<{prefix}invoke name="', f"</{prefix}invoke>"
    around = (f"<{section}>\n", f"</{section}>")
    parameters = Parameters(
        f'<{prefix}parameter name="',
        ">",
        f"</{prefix}parameter>",
        re.compile(r'(?P<key>[^"<>]*)"(?:\s+string="(?P<text>true|false)")?\s*'),
    )
    markup = NamedCalls(
        begin, ('">',), close, opens=(f"<{section}>",), closes=(f"</{section}>",), parameters=parameters
    )
    form = CallForm(
        begin, '">\n', f"{close}\n", style, trigger=f"<{section}>", separator="", around=around, leads=(lead,)
    )
    return ToolFormat(markup, form)


_MINIMAX_M3 = "]<]minimax[>["

_GLM = Parameters("<arg_key>", "</arg_key>", "</arg_value>", value_begin="<arg_value>")
_HY3 = Parameters(
    "<arg_key:opensource>",
    "</arg_key:opensource>",
    "</arg_value:opensource>",
    value_begin="<arg_value:opensource>",
)
_DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_KIMI_NAME = re.compile(r"\s*(?P<id>(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?)\s*")
_MISTRAL_ID = "[a-zA-Z0-9]{9}"
_MISTRAL_NAMED = NamedCalls(
    "[TOOL_CALLS]",
    ("[ARGS]", "{"),
    "",
    re.compile(r"\s*(?P<name>[\w.-]+)\s*(?:\[CALL_ID\]\s*(?P<id>\w+)\s*)?"),
    inner=("[CALL_ID]",),
    kept=("{",),
)

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    "hermes": ToolFormat(
        JsonCalls("<tool_call>", "</tool_call>"),
        CallForm(
            '<tool_call>\n{"name": "',
            '", "arguments": ',
            "}\n</tool_call>",
            trigger="<tool_call>",
            separator="\n",
        ),
    ),
    "llama3_json": ToolFormat(
        WholeAnswer((read_json_calls,), JSON_PREFIXES, dropped=("<|python_tag|>",)),
        CallForm(begin='{"name": "', middle='", "parameters": ', end="}"),
    ),
    "gemma": ToolFormat(
        GemmaCalls(),
        CallForm(begin='{"name": "', middle='", "parameters": ', end="}", separator=", ", brackets=("[", "]")),
    ),
    "qwen3_coder": _function_xml("tool_call"),
    "seed_oss": _function_xml("seed:tool_call"),
    "glm45": ToolFormat(
        NamedCalls(
            "<tool_call>",
            ("\n", "<arg_key>", "</tool_call>"),
            "</tool_call>",
            kept=("<arg_key>", "</tool_call>"),
            parameters=_GLM,
        ),
        # Before 4.7 the template has a line end between calls, and around arguments.
        CallForm("<tool_call>", "", "</tool_call>{free}", "glm_xml", "<tool_call>", separator="", free=r"\n?"),
    ),
    "hy3": ToolFormat(
        NamedCalls(
            "<tool_call:opensource>",
            ("<tool_sep:opensource>",),
            "</tool_call:opensource>",
            opens=("<tool_calls:opensource>",),
            closes=("</tool_calls:opensource>",),
            parameters=_HY3,
        ),
        None,
    ),
    "minimax_m2": _invoke("", "minimax:tool_call", "minimax_xml", "\n"),
    "deepseek_v32": _invoke("｜DSML｜", "｜DSML｜function_calls", "deepseek_xml", "\n\n"),
    "deepseek_v4": _invoke("｜DSML｜", "｜DSML｜tool_calls", "deepseek_xml", "\n\n"),
    "minimax_m3": ToolFormat(
        NamedCalls(
            _MINIMAX_M3 + '<invoke name="',
            ('">',),
            _MINIMAX_M3 + "</invoke>",
            opens=(_MINIMAX_M3 + "<tool_call>",),
            closes=(_MINIMAX_M3 + "</tool_call>",),
            parameters=Parameters(
                _MINIMAX_M3 + "<",
                ">",
                _MINIMAX_M3 + "</{key}>",
                re.compile(r"(?P<key>[^<>]*)"),
                read=xml_value(_MINIMAX_M3),
            ),
        ),
        CallForm(
            _MINIMAX_M3 + '<invoke name="',
            '">',
            _MINIMAX_M3 + "</invoke>\n",
            "minimax_m3_xml",
            _MINIMAX_M3 + "<tool_call>",
            separator="",
            around=(_MINIMAX_M3 + "<tool_call>\n", _MINIMAX_M3 + "</tool_call>"),
        ),
    ),
    "minicpm5": ToolFormat(
        NamedCalls(
            '<function name="',
            ('">',),
            "</function>",
            parameters=Parameters('<param name="', '">', "</param>", re.compile(r'(?P<key>[^"<>]*)'), cdata=True),
        ),
        None,
    ),
    "kimi_k3": ToolFormat(
        NamedCalls(
            '<|open|>call tool="',
            ("<|sep|>",),
            "<|close|>call<|sep|>",
            re.compile(r'(?P<name>[\w.-]+)"[^<>]*'),
            opens=("<|open|>tools<|sep|>",),
            closes=("<|close|>tools<|sep|>",),
            parameters=Parameters(
                '<|open|>argument key="',
                "<|sep|>",
                "<|close|>argument<|sep|>",
                re.compile(r'(?P<key>[^"<>]*)"(?: type="(?P<text>\w+)")?'),
                entities=True,
            ),
        ),
        CallForm(
            '<|open|>call tool="',
            '" index="{free}"<|sep|>',
            "<|close|>call<|sep|>",
            "kimi_k3_xml",
            "<|open|>tools<|sep|>",
            separator="",
            around=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
            leads=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
            tail="<|close|>message<|sep|>",
        ),
    ),
    "deepseek_v3": ToolFormat(
        NamedCalls(
            "<｜tool▁call▁begin｜>",
            ("\n", "```"),
            "<｜tool▁call▁end｜>",
            re.compile(r"\s*(?:function)?\s*<｜tool▁sep｜>\s*(?P<name>[\w.-]+)\s*"),
            inner=("<｜tool▁sep｜>",),
            kept=("```",),
            opens=_DEEPSEEK_SECTION[:1],
            closes=_DEEPSEEK_SECTION[1:],
        ),
        CallForm(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            "\n```json\n",
            "\n```<｜tool▁call▁end｜>",
            trigger=_DEEPSEEK_SECTION[0],
            separator="\n",
            around=_DEEPSEEK_SECTION,
        ),
    ),
    "deepseek_v31": ToolFormat(
        NamedCalls(
            "<｜tool▁call▁begin｜>",
            ("<｜tool▁sep｜>",),
            "<｜tool▁call▁end｜>",
            opens=_DEEPSEEK_SECTION[:1],
            closes=_DEEPSEEK_SECTION[1:],
        ),
        CallForm(
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            trigger=_DEEPSEEK_SECTION[0],
            separator="",
            around=_DEEPSEEK_SECTION,
        ),
    ),
    "kimi_k2": ToolFormat(
        NamedCalls(
            "<|tool_call_begin|>",
            ("<|tool_call_argument_begin|>",),
            "<|tool_call_end|>",
            _KIMI_NAME,
            opens=("<|tool_calls_section_begin|>",),
            closes=("<|tool_calls_section_end|>",),
        ),
        CallForm(
            "<|tool_call_begin|>functions.",
            ":{free}<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
            trigger="<|tool_calls_section_begin|>",
            separator="",
            around=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        ),
    ),
    "solar": ToolFormat(
        NamedCalls(
            "<|tool_call:begin|>",
            ("<|tool_call:args|>",),
            "<|tool_call:end|>",
            re.compile(r"\s*(?P<id>[\w-]+)\s*<\|tool_call:name\|>\s*(?P<name>[\w.-]+)\s*"),
            inner=("<|tool_call:name|>",),
        ),
        CallForm(
            "<|tool_call:begin|>{free}<|tool_call:name|>",
            "<|tool_call:args|>",
            "<|tool_call:end|>",
            trigger="<|tool_call:begin|>",
            separator="",
            around=("<|tool_calls|>", ""),
            free="[a-zA-Z0-9]{1,16}",
        ),
    ),
    "mistral": ToolFormat(
        JsonCalls("[TOOL_CALLS]"),
        CallForm(
            '{"name": "',
            '", "arguments": ',
            ', "id": "{free}"}',
            trigger="[TOOL_CALLS]",
            separator=", ",
            around=("[TOOL_CALLS][", "]"),
            free=_MISTRAL_ID,
        ),
    ),
    "mistral_v11": ToolFormat(
        _MISTRAL_NAMED,
        CallForm("[TOOL_CALLS]", "[CALL_ID]{free}[ARGS]", "", trigger="[TOOL_CALLS]", separator="", free=_MISTRAL_ID),
    ),
    "mistral_v13": ToolFormat(
        _MISTRAL_NAMED, CallForm("[TOOL_CALLS]", "[ARGS]", "", trigger="[TOOL_CALLS]", separator="")
    ),
    "granite": _array("<|tool_call|>"),
    "phi4_mini_json": _array("<|tool_call|>", "<|/tool_call|>", also=("functools",)),
    "nemotron_json": _array("<TOOLCALL>", "</TOOLCALL>"),
    "hunyuan_a13b": _array("<tool_calls>", "</tool_calls>"),
    "apriel": _array("<tool_calls>", "</tool_calls>"),
    "minimax_m1": ToolFormat(
        JsonCalls("<tool_calls>", "</tool_calls>"),
        CallForm(
            '{"name": "',
            '", "arguments": ',
            "}\n",
            trigger="<tool_calls>",
            separator="",
            around=("<tool_calls>\n", "</tool_calls>"),
        ),
    ),
    "cohere_command": ToolFormat(
        JsonCalls("<|START_ACTION|>", "<|END_ACTION|>"),
        CallForm(
            '{"tool_call_id": "{free}", "tool_name": "',
            '", "parameters": ',
            "}",
            trigger="<|START_ACTION|>",
            separator=",\n    ",
            around=("<|START_ACTION|>[\n    ", "\n]<|END_ACTION|>"),
        ),
    ),
    "gigachat3": ToolFormat(
        JsonCalls(
            "<|function_call|>",
            also=("<|message_sep|>\n\nfunction call<|role_sep|>\n", "function call<|role_sep|>\n"),
        ),
        CallForm('<|function_call|>{"name": "', '", "arguments": ', "}", trigger="<|function_call|>"),
    ),
    "functionary_v31": ToolFormat(
        NamedCalls("<function=", (">",), "</function>"),
        CallForm("<function=", ">", "</function>", trigger="<function=", separator=""),
    ),
    "pythonic": ToolFormat(
        WholeAnswer(
            (read_python_calls, read_json_calls),
            JSON_PREFIXES,
            python_list=True,
            dropped=("<|python_start|>", "<|python_end|>"),
        ),
        # Such models write JSON too.
        CallForm(begin='{"name": "', middle='", "parameters": ', end="}"),
    ),
    "lfm2": ToolFormat(
        HeldCalls("<|tool_call_start|>", "<|tool_call_end|>", (read_python_calls, read_json_calls)),
        None,
    ),
    "olmo3": ToolFormat(HeldCalls("<function_calls>", "</function_calls>", (read_python_calls,)), None),
    "gemma4": ToolFormat(HeldCalls("<|tool_call>", "<tool_call|>", (read_gemma4_calls,), inner=(QUOTE,)), None),
    "openai": ToolFormat(
        None,
        CallForm(
            "<|channel|>commentary to=functions.",
            " <|constrain|>json<|message|>",
            "<|call|>",
            trigger="<|channel|>commentary to=",
        ),
    ),
}

# The form of calls for families that have none of their own.
GENERIC = "hermes"

REASONING_FORMATS: Mapping[str, ReasoningFormat] = {
    "think": ReasoningFormat("<think>", "</think>"),
    "granite": ReasoningFormat(
        "<think>",
        "</think>",
        after="",
        before_answer="<response>",
        after_answer="</response>",
        dropped=("<response>", "</response>"),
    ),
    "hunyuan": ReasoningFormat(
        "<think>",
        "</think>",
        after="\n",
        before_answer="<answer>\n",
        after_answer="\n</answer>",
        dropped=("<answer>\n", "\n</answer>"),
    ),
    "seed": ReasoningFormat("<seed:think>", "</seed:think>", after="\n"),
    "mistral": ReasoningFormat("[THINK]", "[/THINK]", after=""),
    "hy3": ReasoningFormat("<think:opensource>", "</think:opensource>", after=""),
    "minimax_m3": ReasoningFormat("<mm:think>", "</mm:think>", after=""),
    "gemma4": ReasoningFormat("<|channel>thought", "<channel|>", after=""),
    "cohere": ReasoningFormat(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        after="",
        before_answer="<|START_RESPONSE|>",
        after_answer="<|END_RESPONSE|>",
        dropped=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    "kimi_k3": ReasoningFormat(
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|>",
        after="",
        before_answer="<|open|>response<|sep|>",
        after_answer="<|close|>response<|sep|><|close|>message<|sep|>",
        dropped=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
    ),
    "solar": ReasoningFormat(
        "<|think|>",
        "<|end|>",
        after="<|begin|>assistant",
        before_answer="<|content|>",
        dropped=("<|begin|>assistant", "<|content|>", "<|tool_calls|>"),
    ),
    "apriel": ReasoningFormat(
        "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", after="\n", dropped=("\n[END FINAL RESPONSE]",)
    ),
    "openai": ReasoningFormat(
        "<|channel|>analysis<|message|>",
        "<|end|>",
        after="<|start|>assistant",
        before_answer="<|channel|>final<|message|>",
        channels=True,
    ),
}

# Given instead of a name: the format follows from the checkpoint.
AUTO = "auto"
# How alike an unknown name and a known one are if it is a slip.
_SLIP = 0.8

# The names of vLLM's --tool-call-parser and --reasoning-parser that are not ours -> ours.
TOOL_PARSER_NAMES: Mapping[str, str] = {
    "qwen3_xml": "qwen3_coder",
    "step3p5": "qwen3_coder",
    "qwen3_json": "hermes",
    "granite4": "hermes",
    "ernie45": "hermes",
    "glm47": "glm45",
    "ling3": "glm45",
    "poolside_v1": "glm45",
    "hy_v3": "hy3",
    "llama4_json": "llama3_json",
    "llama4_pythonic": "pythonic",
    "jamba": "hunyuan_a13b",
    "minimax": "minimax_m1",
    "cohere_command3": "cohere_command",
}
REASONING_PARSER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "deepseek_r1",
            "deepseek_v3",
            "deepseek_v4",
            "glm45",
            "glm47",
            "holo2",
            "kimi_k2",
            "ling3",
            "minimax_m2",
            "nemotron_v3",
            "olmo3",
            "poolside_v1",
            "qwen3",
            "step3",
            "step3p5",
            "mimo",
        ),
        "think",
    ),
    "openai_gptoss": "openai",
    "ernie45": "granite",
    "seed_oss": "seed",
    "cohere_command3": "cohere",
    "hy_v3": "hy3",
    "hunyuan_a13b": "hunyuan",
}


def resolve_tool_format(name: str) -> str:
    """The key in TOOL_FORMATS of a name of vLLM's or ours; raises ValueError for an unknown one."""
    return _resolve(name, TOOL_FORMATS, TOOL_PARSER_NAMES, "tool-call parser")


def resolve_reasoning_format(name: str) -> str:
    """The key in REASONING_FORMATS of a name of vLLM's or ours; raises ValueError for an unknown one."""
    return _resolve(name, REASONING_FORMATS, REASONING_PARSER_NAMES, "reasoning parser")


def check_format(name: str, table: Mapping[str, object]) -> None:
    """Raise ValueError if a table of formats does not have the name."""
    if name not in table:
        raise ValueError(f"unknown format '{name}'; known: {', '.join(sorted(table))}")


def _resolve(name: str, table: Mapping[str, object], others: Mapping[str, str], what: str) -> str:
    found = name if name in table else others.get(name)
    if found is None:
        known = sorted({*table, *others})
        raise ValueError(
            f"unknown {what} '{name}'" + (did_you_mean(name, known, _SLIP) or f"; known: {AUTO}, {', '.join(known)}")
        )
    return found


def forced_format(tool_parser: str | None) -> str:
    """The key in TOOL_FORMATS of forced calls: the family's own if guided decoding can write it, else GENERIC."""
    return tool_parser if tool_parser and TOOL_FORMATS[tool_parser].form else GENERIC


def call_form(tool_parser: str | None, tool_choice: str) -> CallForm | None:
    """The form of calls in a tool format; None if those of a `tool_choice` of "auto" cannot be constrained.

    Forced calls always have one, which needs no prompt that asks for it.
    Raises RequestError (param "tools") for a `tool_choice` of "auto" without a format.
    """
    if tool_choice != "auto":
        return TOOL_FORMATS[forced_format(tool_parser)].form
    if tool_parser is None:
        raise PositionError(
            "tools",
            "need a tool_choice that forces a call: the served model's template has no tool-call format known here",
        )
    return TOOL_FORMATS[tool_parser].form
