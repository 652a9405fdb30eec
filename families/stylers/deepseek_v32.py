# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V3.2: thinking off unless it is switched on, tool results as text of the answer that asked for them."""

from itertools import groupby

from common.chat.messages import Message
from common.chat.tools import Tool
from families.stylers.dsml import DSML, END_THINK, THINK, DSMLStyler, functions

# The text that the model was trained with, as in its encoding_dsv32.py.
_TOOLS = f"""\
## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<{DSML}function_calls>" block like the following as part of your reply to the \
user:
<{DSML}function_calls>
<{DSML}invoke name="$FUNCTION_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$FUNCTION_NAME2">
...
</{DSML}invoke>
</{DSML}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should \
use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types \
(numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. \
Here is an example:

<{DSML}function_calls>
...
</{DSML}function_calls>

<function_results>
...
</function_results>

{THINK}...thinking about results{END_THINK}

Here are the functions available in JSONSchema format:
<functions>
"""
_TOOLS_END = "\n</functions>\n"


class DeepSeekV32Styler(DSMLStyler):
    """DeepSeek V3.2. The reasoning of an answer is dropped once the user says something new."""

    name = "deepseek_v32"
    calls_element = "function_calls"
    tools = "deepseek_v32"
    thinks = False

    def describe(self, tools: tuple[Tool, ...]) -> str:
        return _TOOLS + functions(tools) + _TOOLS_END

    def turns(self, messages: list[Message]) -> list[Message]:
        turns: list[Message] = []
        for role, run in groupby(messages, key=lambda message: str(message["role"])):
            if role == "tool":
                results = "\n".join(f"<result>{message['content']}</result>" for message in run)
                turns.append({"role": role, "content": f"\n\n<function_results>\n{results}\n</function_results>"})
            else:
                turns += run
        return turns
