# SPDX-License-Identifier: Apache-2.0
"""The same dialogue with a tool, whole and streamed, through clients that people use; the answers are in tests/support/agent_rules.py."""

import json
import os
from typing import Any

import instructor
import litellm
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, OpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

URL, MODEL = f"{os.environ['TRITON_CHAT_TEST_URL']}/v1", "qwen3"
QUESTION = "What's the weather like in Boston today?"
ANSWER = "It is 59.0 °F in Boston, MA. 🌤️"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}, "unit": {"type": "string"}},
            "required": ["location", "unit"],
        },
    },
}
set_tracing_disabled(True)


def get_weather(location: str, unit: str) -> str:
    """Get the current weather in a location."""
    return f"It is 59.0 {unit} in {location}."


class Report(BaseModel):
    """A weather report."""

    location: str
    temperature: float


REPORT = Report(location="Boston", temperature=59.0)


@pytest.fixture
async def client() -> Any:
    async with AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(params=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return request.param == "streamed"


@pytest.mark.parametrize("model", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def test_openai_agents_sdk(client: AsyncOpenAI, model: type, streamed: bool) -> None:
    settings = ModelSettings(include_usage=True, reasoning=Reasoning(effort="low"))
    agent = Agent("weather", model=model(MODEL, client), tools=[function_tool(get_weather)], model_settings=settings)
    if streamed:
        run = Runner.run_streamed(agent, QUESTION)
        assert "raw_response_event" in [event.type async for event in run.stream_events()]
    else:
        run = await Runner.run(agent, QUESTION)
    assert run.final_output == ANSWER
    outputs = [item.output for item in run.new_items if item.type == "tool_call_output_item"]
    assert outputs == ["It is 59.0 fahrenheit in Boston, MA."]
    usage = run.context_wrapper.usage
    assert usage.requests == 2 and usage.input_tokens > usage.output_tokens > 0


@pytest.mark.parametrize("model", [OpenAIChatModel, PydanticResponsesModel])
async def test_pydantic_ai(client: AsyncOpenAI, model: type, streamed: bool) -> None:
    agent = PydanticAgent(model(MODEL, provider=OpenAIProvider(openai_client=client)), tools=[get_weather])
    if streamed:
        async with agent.run_stream(QUESTION) as run:
            deltas = [delta async for delta in run.stream_text(delta=True, debounce_by=None)]
        assert "".join(deltas) == ANSWER
    else:
        run = await agent.run(QUESTION)
        assert run.output == ANSWER
    parts = [part for message in run.all_messages() for part in message.parts]
    # The text of a reasoning item is apart, as it is no summary.
    thoughts = [
        part.content or "".join(part.provider_details["raw_content"]) for part in parts if part.part_kind == "thinking"
    ]
    assert [thought.strip() for thought in thoughts] == ["I need the tool."]
    assert [part.args_as_dict() for part in parts if part.part_kind == "tool-call"] == [
        {"location": "Boston, MA", "unit": "fahrenheit"}
    ]


@pytest.mark.parametrize("model", [OpenAIChatModel, PydanticResponsesModel])
async def test_pydantic_ai_structured(client: AsyncOpenAI, model: type) -> None:
    """A forced call of a tool made from the class."""
    agent = PydanticAgent(model(MODEL, provider=OpenAIProvider(openai_client=client)), output_type=Report)
    assert (await agent.run("Return the report: Boston has 59.0")).output == REPORT


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_instructor(mode: instructor.Mode, streamed: bool) -> None:
    client = instructor.from_openai(OpenAI(base_url=URL, api_key="unused", max_retries=0), mode=mode)
    question = (
        "Read the report: Boston has 59.0" if mode is instructor.Mode.TOOLS else "Write it as JSON: Boston has 59.0"
    )
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_retries": 0}
    if streamed:
        *_, last = client.chat.completions.create_partial(response_model=Report, **asked)
        assert last.model_dump() == REPORT.model_dump()
    else:
        # The class is returned as one of its own.
        assert client.chat.completions.create(response_model=Report, **asked).model_dump() == REPORT.model_dump()


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm(provider: str, streamed: bool) -> None:
    fields: dict[str, Any] = {"model": f"{provider}/{MODEL}", "api_base": URL, "api_key": "unused", "max_retries": 0}
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    first = litellm_message(streamed, messages=messages, tools=[WEATHER], **fields)
    assert first.reasoning_content.strip() == "I need the tool."
    (call,) = first.tool_calls
    result = get_weather(**json.loads(call.function.arguments))
    messages += [first, {"role": "tool", "tool_call_id": call.id, "content": result}]
    assert litellm_message(streamed, messages=messages, tools=[WEATHER], **fields).content == ANSWER


def litellm_message(streamed: bool, **fields: Any) -> Any:
    if not streamed:
        return litellm.completion(**fields).choices[0].message
    chunks = list(litellm.completion(**fields, stream=True, stream_options={"include_usage": True}))
    whole = litellm.stream_chunk_builder(chunks, messages=fields["messages"])
    assert whole.usage.completion_tokens > 0
    return whole.choices[0].message
