# SPDX-License-Identifier: Apache-2.0
"""Let the model call a function, send back the result, and print the model's answer.

python scripts/clients/function_call.py
"""

import json
from typing import Any

from arguments import argument_parser
from openai import OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam


def get_current_weather(location: str, unit: str = "fahrenheit") -> str:
    return "59.0" if unit == "fahrenheit" else "15.0"


TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        },
    },
}

parser = argument_parser(__doc__)
parser.add_argument("question", nargs="?", default="What's the weather like in Boston today?")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
# Dictionaries, or messages as the client returned them.
messages: list[Any] = [{"role": "user", "content": args.question}]
first = client.chat.completions.create(model=args.model, messages=messages, tools=[TOOL])
message = first.choices[0].message
call = message.tool_calls[0] if message.tool_calls else None
if call is None or call.type != "function":
    raise SystemExit(f"The model called no function; it answered: {message.content}")

print(f"The model calls {call.function.name}({call.function.arguments})")
result = get_current_weather(**json.loads(call.function.arguments))
print(f"The function returns {result}")

# The model's message and the result, which refers to the call by its id.
messages += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
second = client.chat.completions.create(model=args.model, messages=messages, tools=[TOOL])
print(second.choices[0].message.content)
