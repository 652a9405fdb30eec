# SPDX-License-Identifier: Apache-2.0
"""A LlamaIndex agent with one tool.

pip install llama-index-core llama-index-llms-openai-like
python examples/llamaindex_agent.py
"""

import asyncio

from arguments import argument_parser
from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult
from llama_index.llms.openai_like import OpenAILike


def get_weather(location: str, unit: str) -> str:
    """Get the current weather in a location.

    Args:
        location: The city and state, e.g. San Francisco, CA
        unit: celsius or fahrenheit
    """
    return f"It is 59.0 {unit} in {location}."


async def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("question", nargs="?", default="What's the weather like in Boston today?")
    args = parser.parse_args()
    llm = OpenAILike(
        model=args.model, api_base=args.url, api_key=args.key, is_chat_model=True, is_function_calling_model=True
    )
    agent = FunctionAgent(tools=[get_weather], llm=llm)
    run = agent.run(args.question)
    async for event in run.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"{event.tool_name}({event.tool_kwargs}) -> {event.tool_output.content}")
        elif isinstance(event, AgentStream):
            print(event.delta, end="", flush=True)
    await run
    print()


asyncio.run(main())
