# SPDX-License-Identifier: Apache-2.0
"""The OpenAI Agents SDK on `/v1/responses` and on chats: agents with tools, handoffs, typed outputs and stored turns."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from agents.models.interface import Model
from openai.types.shared import Reasoning
from pydantic import BaseModel

from tests.fakes.fake_triton import Call, finish, reply
from tests.fakes.frontend_server import Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Nothing but the server is to be talked to.
UNTRACED = RunConfig(tracing_disabled=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("agents")
    async with serving(response_store=str(folder / "responses.db")) as one:
        yield one


@pytest.fixture
def served(running: Serving) -> Serving:
    running.reset()
    running.triton.script = dialogue
    return running


@pytest.fixture(params=["responses", "chat"])
def model(served: Serving, request: pytest.FixtureRequest) -> Model:
    if request.param == "chat":
        return OpenAIChatCompletionsModel("model", served.openai)
    return OpenAIResponsesModel("model", served.openai)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return request.param


async def run(agent: Agent, said: Any, streamed: bool, **fields: Any) -> Any:
    if not streamed:
        return await Runner.run(agent, said, run_config=UNTRACED, **fields)
    result = Runner.run_streamed(agent, said, run_config=UNTRACED, **fields)
    async for _ in result.stream_events():
        pass
    return result


def calls(*named: tuple[str, dict[str, Any]]) -> list[Any]:
    replies = []
    for index, (name, arguments) in enumerate(named):
        first = {"index": index, "id": f"call_{name}_{index}", "type": "function", "function": {"name": name}}
        first["function"]["arguments"] = ""
        replies.append(reply(tool_calls=[first]))
        text = json.dumps(arguments, ensure_ascii=False)
        for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
            replies.append(reply(tool_calls=[{"index": index, "function": {"arguments": piece}}]))
    return replies


async def dialogue(call: Call) -> AsyncIterator[Any]:
    """Answers by the last message: the scripted model of all tests here."""
    last = call.messages["messages"][-1]
    said = last["content"] if isinstance(last["content"], str) else last["content"][0]["text"]
    if last["role"] == "tool":
        for one in (reply("It is "), reply("59.0 °F. 🌤️")):
            yield one
        yield finish(completion=5)
    elif "weather" in said:
        yield reply(reasoning_output="I need the tool.")
        for one in calls(("get_weather", {"city": "Boston, MA"}), ("get_weather", {"city": "Zürich"})):
            yield one
        yield finish("tool_calls", completion=9, reasoning_tokens=4)
    elif "expert" in said:
        for one in calls(("transfer_to_expert", {})):
            yield one
        yield finish("tool_calls", completion=3)
    elif "report" in said:
        yield reply('{"city": "Boston", ')
        yield reply('"degrees": 59.0}')
        yield finish(completion=8)
    else:
        yield reply("I am here.")
        yield finish(completion=4)


asked: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: The name of a city.
    """
    asked.append(city)
    return f"59.0 in {city}"


async def test_an_agent_with_a_tool(served: Serving, model: Model, streamed: bool) -> None:
    asked.clear()
    agent = Agent(name="Weather", instructions="Use the tool.", model=model, tools=[get_weather])
    result = await run(agent, "What's the weather?", streamed)
    assert result.final_output == "It is 59.0 °F. 🌤️"
    # The SDK runs the calls at the same time.
    assert sorted(asked) == ["Boston, MA", "Zürich"]
    first, second = (call.messages for call in served.triton.calls)
    assert first["messages"][0] == {"role": "system", "content": "Use the tool."}
    assert first["tools"][0]["function"]["parameters"]["properties"]["city"]["description"] == "The name of a city."
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    assert [message["content"] for message in second["messages"][3:]] == ["59.0 in Boston, MA", "59.0 in Zürich"]
    if not streamed or isinstance(model, OpenAIResponsesModel):  # chats tell it only on request
        usage = result.context_wrapper.usage
        assert (usage.requests, usage.output_tokens) == (2, 14)


@pytest.mark.parametrize("store", [None, False])
async def test_reasoning_comes_back_with_the_calls(served: Serving, streamed: bool, store: bool | None) -> None:
    """The SDK drops nothing of an item of reasoning, so its text reaches the template of the next turn."""
    settings = ModelSettings(
        store=store, reasoning=Reasoning(effort="high"), response_include=["reasoning.encrypted_content"]
    )
    responses = OpenAIResponsesModel("model", served.openai)
    agent = Agent(name="Weather", model=responses, tools=[get_weather], model_settings=settings)
    await run(agent, "What's the weather?", streamed)
    assert served.triton.calls[1].messages["messages"][1]["reasoning_content"] == "I need the tool."
    assert served.triton.calls[0].messages["reasoning_effort"] == "high"


async def test_a_handoff(served: Serving, model: Model, streamed: bool) -> None:
    expert = Agent(name="expert", instructions="You know.", model=model)
    agent = Agent(name="first", model=model, handoffs=[expert])
    result = await run(agent, "I want an expert.", streamed)
    assert result.last_agent is expert and result.final_output == "It is 59.0 °F. 🌤️"
    assert served.triton.calls[1].messages["messages"][0] == {"role": "system", "content": "You know."}


class Report(BaseModel):
    city: str
    degrees: float


async def test_a_typed_output(served: Serving, model: Model, streamed: bool) -> None:
    agent = Agent(name="Reporter", model=model, output_type=Report)
    result = await run(agent, "Make a report.", streamed)
    assert result.final_output == Report(city="Boston", degrees=59.0)
    sent = served.triton.calls[0].messages["response_format"]["json_schema"]
    assert sent["strict"] is True and set(sent["schema"]["properties"]) == {"city", "degrees"}


async def test_the_next_turn_with_the_items_of_the_last(served: Serving, model: Model, streamed: bool) -> None:
    agent = Agent(name="Weather", model=model, tools=[get_weather])
    result = await run(agent, "What's the weather?", streamed)
    turns = [*result.to_input_list(), {"role": "user", "content": "Thanks."}]
    assert (await run(agent, turns, streamed)).final_output == "I am here."
    roles = [message["role"] for message in served.triton.calls[2].messages["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_the_next_turn_of_a_stored_response(served: Serving, streamed: bool) -> None:
    agent = Agent(name="Weather", model=OpenAIResponsesModel("model", served.openai), tools=[get_weather])
    first = await run(agent, "What's the weather?", streamed)
    second = await run(agent, "Thanks.", streamed, previous_response_id=first.last_response_id)
    assert second.final_output == "I am here."
    roles = [message["role"] for message in served.triton.calls[2].messages["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_turns_chained_within_a_run(served: Serving, streamed: bool) -> None:
    """Each turn sends only what is new."""
    agent = Agent(name="Weather", model=OpenAIResponsesModel("model", served.openai), tools=[get_weather])
    result = await run(agent, "What's the weather?", streamed, auto_previous_response_id=True)
    assert result.final_output == "It is 59.0 °F. 🌤️"
    roles = [message["role"] for message in served.triton.calls[1].messages["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize("choice", ["required", "auto", "none", "get_weather"])
async def test_every_choice_of_tools(served: Serving, model: Model, choice: str) -> None:
    settings = ModelSettings(tool_choice=choice, parallel_tool_calls=False, temperature=0.5, max_tokens=50)
    agent = Agent(name="Weather", model=model, tools=[get_weather], model_settings=settings)
    await run(agent, "Hello", False)
    call = served.triton.calls[0]
    assert call.inputs["max_tokens"] == [50] and call.inputs["temperature"] == [0.5]
    chosen = f"function:{choice}" if choice == "get_weather" else choice
    assert call.parameters.get("tool_choice", "auto") == chosen and call.messages["parallel_tool_calls"] is False
