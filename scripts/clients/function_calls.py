# SPDX-License-Identifier: Apache-2.0
"""Let the model call two functions, together or one after the other, until it answers.

python scripts/clients/function_calls.py
"""

import json
from typing import Any

from arguments import argument_parser
from openai import OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam


def get_postcode(location: str) -> str:
    return "02138"


def get_current_weather(location: str, unit: str = "fahrenheit") -> str:
    return "59.0" if unit == "fahrenheit" else "15.0"


FUNCTIONS = {"get_postcode": get_postcode, "get_current_weather": get_current_weather}
LOCATION = {"type": "string", "description": "The city, e.g. San Francisco"}
UNIT = {"type": "string", "enum": ["celsius", "fahrenheit"]}
TOOLS: list[ChatCompletionFunctionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_postcode",
            "description": "Get the postcode of a given location",
            "parameters": {"type": "object", "properties": {"location": LOCATION}, "required": ["location"]},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {"location": LOCATION, "unit": UNIT},
                "required": ["location"],
            },
        },
    },
]
MAX_ROUNDS = 5

parser = argument_parser(__doc__)
question = "What's the postcode of Boston and what's the weather like in Boston today?"
parser.add_argument("question", nargs="?", default=question)
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
# Dictionaries, or messages as the client returned them.
messages: list[Any] = [{"role": "user", "content": args.question}]
for _ in range(MAX_ROUNDS):
    answer = client.chat.completions.create(model=args.model, messages=messages, tools=TOOLS)
    message = answer.choices[0].message
    if not message.tool_calls:
        print(message.content)
        break
    messages.append(message)
    for call in message.tool_calls:
        if call.type != "function":
            raise SystemExit(f"The model called a tool of another type: {call.type}")
        result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
        print(f"{call.function.name}({call.function.arguments}) -> {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
else:
    raise SystemExit(f"No answer after {MAX_ROUNDS} rounds of calls.")
