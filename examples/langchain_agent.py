# SPDX-License-Identifier: Apache-2.0
"""A LangChain chat model with a tool, invoked until it answers without calling the tool.

pip install langchain-openai
python examples/langchain_agent.py
"""

from arguments import argument_parser
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


def get_weather(location: str, unit: str) -> str:
    """Get the current weather in a location; unit is celsius or fahrenheit."""
    return f"It is 59.0 {unit} in {location}."


MAX_ROUNDS = 5

parser = argument_parser(__doc__)
parser.add_argument("question", nargs="?", default="What's the weather like in Boston today?")
args = parser.parse_args()

weather = tool(get_weather)
model = ChatOpenAI(model=args.model, base_url=args.url, api_key=args.key).bind_tools([weather])
messages = [HumanMessage(args.question)]
for _ in range(MAX_ROUNDS):
    answer = model.invoke(messages)
    messages.append(answer)
    if not answer.tool_calls:
        print(answer.content)
        break
    for call in answer.tool_calls:
        result = weather.invoke(call)
        print(f"{call['name']}({call['args']}) -> {result.content}")
        messages.append(result)
else:
    raise SystemExit(f"No answer after {MAX_ROUNDS} rounds of calls.")
