# SPDX-License-Identifier: Apache-2.0
"""Let the model call a function of yours, send back what it returned, print the answer that the model makes of it.

python scripts/clients/function_call.py
"""

import json

from arguments import argument_parser
from openai import OpenAI


def get_current_weather(location: str, unit: str = "fahrenheit") -> str:
    return "59.0" if unit == "fahrenheit" else "15.0"


TOOL = {
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
messages = [{"role": "user", "content": args.question}]
first = client.chat.completions.create(model=args.model, messages=messages, tools=[TOOL])
message = first.choices[0].message
if not message.tool_calls:
    raise SystemExit(f"The model called no function, it said: {message.content}")

call = message.tool_calls[0]
print(f"The model calls {call.function.name}({call.function.arguments})")
result = get_current_weather(**json.loads(call.function.arguments))
print(f"The function returns {result}")

# The model's own message and the result, tied together by the call's id.
messages += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
second = client.chat.completions.create(model=args.model, messages=messages, tools=[TOOL])
print(second.choices[0].message.content)
