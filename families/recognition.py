# SPDX-License-Identifier: Apache-2.0
"""What is known of how a served model writes reasoning and tool calls, what decided it, and what is not known."""

import re
from dataclasses import dataclass

from common.tokenizer import ChatTokenizer
from families.formats import Formats, detect_formats
from families.parsers import AnswerFormat
from families.response_template import described
from families.stylers.base import Styler

# What templates of models that reason have: a variable, a field of messages, or a tag.
_REASONING = re.compile(r"enable_thinking|reasoning_(?:content|effort)|</?think|\[/?think\]", re.IGNORECASE)
_NOTHING = Formats(None, None, None)
_BY_TEMPLATE, _BY_TOKENIZER = "by the chat template", "by the tokenizer's response_template"


@dataclass(frozen=True, slots=True)
class Recognition:
    """How a model is read. Each of the first three is a text for the operator with its reason.

    warnings: what the template seems to have and no rule knows, with the option that helps.
    """

    family: str
    reasoning: str
    tools: str
    warnings: tuple[str, ...]


def recognise(
    styler: Styler, tokenizer: ChatTokenizer, answer_format: AnswerFormat, *, styler_given: bool = False
) -> Recognition:
    """What a start says of a model. styler_given: the operator named the styler."""
    detected = detect_formats(styler.source(tokenizer))
    own = tokenizer.response_template
    by_tokenizer = described(own, detected) if own else detected
    why, why_tools = (
        _BY_TEMPLATE if found == by_rules else _BY_TOKENIZER if found == by_own else f"by the styler {styler.name}"
        for found, by_rules, by_own in (
            (answer_format.reasoning, detected.reasoning, by_tokenizer.reasoning),
            (answer_format.tool_parser, detected.tools, by_tokenizer.tools),
        )
    )
    if styler.reasoning_format:
        why = "by --reasoning-parser"
    if styler.tool_format:
        why_tools = "by --tool-call-parser"
    elif not styler.renders_tools(tokenizer):
        why_tools = "because the chat template knows no tools"
    family = f"{detected.family}, {_BY_TEMPLATE}" if detected.family else "unknown to the rules"
    return Recognition(
        family=f"{family}; styler {styler.name}, by {'--styler' if styler_given else 'config.json'}",
        reasoning=f"{answer_format.reasoning or 'none'}, {why}",
        tools=f"{answer_format.tool_parser or 'none'}, {why_tools}",
        warnings=_warnings(styler, tokenizer, answer_format),
    )


def _warnings(styler: Styler, tokenizer: ChatTokenizer, answer_format: AnswerFormat) -> tuple[str, ...]:
    warnings = []
    if answer_format.tool_parser is None and styler.renders_tools(tokenizer):
        warnings.append(
            "the chat template has tools, but how the model writes calls is not known: they stay in the content, and a "
            "tool_choice of auto is refused. If it is a form that is known here, name it with --tool-call-parser"
        )
    if answer_format.reasoning is None and _REASONING.search(styler.source(tokenizer)):
        warnings.append(
            "the chat template seems to have reasoning, but its markers are not known: it stays in the content. If it "
            "is a form that is known here, name it with --reasoning-parser"
        )
    own = tokenizer.response_template
    if own and not styler.tool_format and "tool_calls" in own and described(own, _NOTHING).tools is None:
        warnings.append(
            "the tokenizer's response_template describes a form of calls that is not known here, so it is not used"
        )
    return tuple(warnings)
