# SPDX-License-Identifier: Apache-2.0
"""LangChain: a chat model with a tool, asked until it calls the tool no more.

pip install langchain-openai
python scripts/clients/langchain_agent.py
"""

from arguments import argument_parser
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(location: str, unit: str) -> str:
    """Get the current weather in a location; unit is celsius or fahrenheit."""
    return f"It is 59.0 {unit} in {location}."


MOST_ROUNDS = 5

parser = argument_parser(__doc__)
parser.add_argument("question", nargs="?", default="What's the weather like in Boston today?")
args = parser.parse_args()

model = ChatOpenAI(model=args.model, base_url=args.url, api_key=args.key).bind_tools([get_weather])
messages = [HumanMessage(args.question)]
for _ in range(MOST_ROUNDS):
    answer = model.invoke(messages)
    messages.append(answer)
    if not answer.tool_calls:
        print(answer.content)
        break
    for call in answer.tool_calls:
        result = get_weather.invoke(call)
        print(f"{call['name']}({call['args']}) -> {result.content}")
        messages.append(result)
else:
    raise SystemExit(f"No answer after {MOST_ROUNDS} rounds of calls.")
