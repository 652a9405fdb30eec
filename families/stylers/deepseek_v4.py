# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V4: thinking in three efforts, on unless it is switched off; tool results are parts of user turns."""

from collections.abc import Mapping
from itertools import groupby
from typing import ClassVar

from common.chat.messages import Message
from common.chat.request import ChatRequest
from common.chat.tools import Tool
from families.stylers.dsml import DSML, END_THINK, THINK, DSMLStyler, functions

# The texts that the model was trained with, as in its encoding_dsv4.py.
_TOOLS = f"""\
## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a \
"<{DSML}tool_calls>" block like the following:

<{DSML}tool_calls>
<{DSML}invoke name="$TOOL_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$TOOL_NAME2">
...
</{DSML}invoke>
</{DSML}tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, \
objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by {THINK}), you MUST output your complete reasoning inside \
{THINK}...{END_THINK} BEFORE any tool calls or final response.

Otherwise, output directly after {END_THINK} with tool calls or final response.

### Available Tool Schemas

"""
_TOOLS_END = """

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""
_ABSOLUTE_MAXIMUM = """\
Reasoning Effort: Absolute maximum with no shortcuts permitted.
You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, \
rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.
Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, \
and rejected hypothesis to ensure absolutely no assumption is left unchecked.

"""
_BEYOND_MAXIMUM = """\
Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.
You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the \
problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying cause \
rather than any surface symptom.
Do not stop reasoning until you have independently verified the solution from multiple angles and are certain that no \
assumption remains unchecked and no error remains undiscovered.

"""
# Values of `reasoning_effort` -> the model's own, as in vLLM. Any other value, and none, is `high`.
_EFFORTS = {"minimal": "low", "low": "low", "medium": "low", "max": "max"}


class DeepSeekV4Styler(DSMLStyler):
    """DeepSeek V4. With tools the reasoning of all turns is kept, else that of the answer in progress."""

    name = "deepseek_v4"
    calls_element = "tool_calls"
    tools = "deepseek_v4"
    thinks = True
    # Effort -> the text at the beginning of the prompt.
    efforts: ClassVar[Mapping[str, str]] = {"low": "", "high": _ABSOLUTE_MAXIMUM, "max": _BEYOND_MAXIMUM}

    def describe(self, tools: tuple[Tool, ...]) -> str:
        return _TOOLS + functions(tools) + _TOOLS_END

    def preface(self, chat: ChatRequest) -> str:
        return self.efforts[_EFFORTS.get(str(chat.effort or self.template_defaults.get("reasoning_effort")), "high")]

    def keeps_reasoning(self, chat: ChatRequest) -> bool:
        return bool(chat.tools) or self.template_kwargs(chat).get("drop_thinking") is False

    def turns(self, messages: list[Message]) -> list[Message]:
        turns: list[Message] = []
        order: dict[str, int] = {}  # id of a call in the last answer with calls -> its place there
        for said_to_model, run in groupby(messages, key=lambda message: message["role"] in ("user", "tool")):
            if said_to_model:
                turns.append({"role": "user", "content": "\n\n".join(_parts(list(run), order))})
                continue
            for message in run:
                turns.append(message)
                if calls := message.get("tool_calls"):
                    order = {call["id"]: at for at, call in enumerate(calls) if "id" in call}
        return turns


class DeepSeekV4PreviewStyler(DeepSeekV4Styler):
    """The first checkpoints of DeepSeek V4, whose `max` is the later ones' `high`, and whose `high` has no text."""

    name = "deepseek_v4_preview"
    efforts: ClassVar[Mapping[str, str]] = {"low": "", "high": "", "max": _ABSOLUTE_MAXIMUM}


def _parts(run: list[Message], order: Mapping[str, int]) -> list[str]:
    """The texts of a user turn; its results are in the order of the calls, at the places of results."""
    results = iter(
        sorted(
            (message for message in run if message["role"] == "tool"),
            key=lambda message: order.get(message.get("tool_call_id", ""), 0),
        )
    )
    return [
        f"<tool_result>{next(results)['content']}</tool_result>" if message["role"] == "tool" else message["content"]
        for message in run
    ]
