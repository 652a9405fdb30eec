# SPDX-License-Identifier: Apache-2.0
"""Let the model call functions, together or one after the other, until it answers.

python examples/tools.py
python examples/tools.py "What's the weather like in Paris, in celsius?"
"""

import json
from typing import Any

from arguments import argument_parser
from openai import OpenAI

FUNCTIONS: dict[str, Any] = {"get_postcode": lambda location: "02138"}
FUNCTIONS["get_current_weather"] = lambda location, unit="fahrenheit": "59.0" if unit == "fahrenheit" else "15.0"
LOCATION = {"location": {"type": "string", "description": "The city, e.g. San Francisco"}}
LOCATION_AND_UNIT = LOCATION | {"unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}


def tool(name: str, properties: dict[str, Any]) -> Any:
    parameters = {"type": "object", "properties": properties, "required": ["location"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("get_postcode", LOCATION), tool("get_current_weather", LOCATION_AND_UNIT)]
parser = argument_parser(__doc__)
parser.add_argument("question", nargs="?", default="What are the postcode of Boston and the weather there today?")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
messages: list[Any] = [{"role": "user", "content": args.question}]
for _ in range(5):
    answer: Any = client.chat.completions.create(model=args.model, messages=messages, tools=TOOLS).choices[0].message
    if not answer.tool_calls:
        print(answer.content or "")
        break
    messages.append(answer)
    for call in answer.tool_calls:
        result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
        print(f"{call.function.name}({call.function.arguments}) -> {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
else:
    raise SystemExit("no answer after five rounds of calls")
