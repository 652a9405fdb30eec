# SPDX-License-Identifier: Apache-2.0
"""Which formats a tokenizer's own `response_template` describes.

A checkpoint may carry this description of its answers, for transformers. That library's parser gives a call when it is
whole, with its arguments in a JSON text of its own, and fails on an answer whose arguments are not JSON. So answers are
not read with it. It only chooses: a short answer is written in each format known here, and the template describes the
formats in which the parser finds what was written.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from families.formats import Formats
from families.parsers.formats import REASONING_FORMATS, TOOL_FORMATS, CallForm, ReasoningFormat

_NAME, _ARGUMENTS = "probe", {"key": "some text"}
_THOUGHT, _ANSWER = "a thought", "an answer"
# The arguments in each style of CallForm.
_STYLES = {
    "json": '{"key": "some text"}',
    "qwen_xml": "<parameter=key>\nsome text\n</parameter>",
    "glm_xml": "<arg_key>key</arg_key>\n<arg_value>some text</arg_value>",
    "minimax_xml": '<parameter name="key">some text</parameter>\n',
    "deepseek_xml": '<｜DSML｜parameter name="key" string="true">some text</｜DSML｜parameter>\n',
    "minimax_m3_xml": "]<]minimax[>[<key>some text]<]minimax[>[</key>",
}
# Calls of formats that guided decoding does not write, and of Solar without the header of their message.
_CALLS = {
    "gemma4": '<|tool_call>call:probe{key:<|"|>some text<|"|>}<tool_call|>',
    "hy3": (
        "<tool_calls:opensource>\n<tool_call:opensource>probe<tool_sep:opensource>\n<arg_key:opensource>key"
        "</arg_key:opensource>\n<arg_value:opensource>some text</arg_value:opensource>\n</tool_call:opensource>\n"
        "</tool_calls:opensource>"
    ),
    "minicpm5": '<function name="probe"><param name="key">some text</param></function>',
    "solar": (
        '<|tool_call:begin|>abcdefghi<|tool_call:name|>probe<|tool_call:args|>{"key": "some text"}<|tool_call:end|>'
    ),
}
# What a call's number or id may be, for each pattern of these.
_FREE = ("", "0", "abcdefghi")


@lru_cache(maxsize=8)
def described(template: str, rules: Formats) -> Formats:
    """The formats that a `response_template`, as JSON text, describes; what it does not is as the rules say.

    Of formats that it cannot tell apart it is the one that the rules say, else the first of the table.
    """
    spec = json.loads(template)
    reasoning = [
        name for name, form in REASONING_FORMATS.items() if _finds_thought(_parsed(spec, written_thought(form)))
    ]
    tools = [name for name in TOOL_FORMATS if (call := written_call(name)) and _finds_call(_parsed(spec, call))]
    return Formats(rules.family, _chosen(reasoning, rules.reasoning), _chosen(tools, rules.tools))


def written_call(name: str) -> str | None:
    """An answer with one call in a format; None if it is not written here."""
    form = TOOL_FORMATS[name].form
    if name in _CALLS or form is None or form.style not in _STYLES:
        return _CALLS.get(name)
    return _written(form)


def written_thought(form: ReasoningFormat) -> str:
    """An answer with reasoning in a format."""
    before = form.before_answer if form.channels else ""  # Other families may leave it out.
    return f"{form.open}\n{_THOUGHT}\n{form.close}{form.after}{before}{_ANSWER}"


def _written(form: CallForm) -> str:
    before, after = form.around or ("", "")
    written = f"{before}{form.begin}{_NAME}{form.middle}{_STYLES[form.style]}{form.end}{after}"
    return written.replace("{free}", next(text for text in _FREE if re.fullmatch(form.free, text)))


def _chosen(found: list[str], by_rules: str | None) -> str | None:
    return by_rules if by_rules in found or not found else found[0]


def _parsed(spec: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """The message that transformers reads from an answer; empty if it cannot."""
    # Imported here because few checkpoints have such a template.
    from transformers.utils.chat_parsing import parse_response

    try:
        message: dict[str, Any] = parse_response(answer, dict(spec), prefix="")
    except Exception:  # The template is another format's, or none at all
        return {}
    return message


def _finds_thought(message: Mapping[str, Any]) -> bool:
    """Whether reasoning and content were told apart."""
    content = message.get("content")
    others = (value for name, value in message.items() if name != "content" and isinstance(value, str))
    return isinstance(content, str) and content.strip() == _ANSWER and _THOUGHT in (value.strip() for value in others)


def _finds_call(message: Mapping[str, Any]) -> bool:
    return any(_is_call(item) for value in message.values() for item in _flat(value))


def _flat(value: Any) -> Iterable[Any]:
    return (one for item in value for one in _flat(item)) if isinstance(value, list) else (value,)


def _is_call(item: Any) -> bool:
    function = item.get("function", item) if isinstance(item, dict) else None
    if not isinstance(function, dict) or function.get("name") != _NAME:
        return False
    arguments = function.get("arguments")
    return arguments == _ARGUMENTS or (isinstance(arguments, str) and arguments == _STYLES["json"])
