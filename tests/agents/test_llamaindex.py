# SPDX-License-Identifier: Apache-2.0
"""LlamaIndex agents and chats through `OpenAILike`; what a scripted engine must answer is in tests/support/agent_rules.py."""

import os

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


@pytest.fixture
def llm() -> OpenAILike:
    return OpenAILike(
        model="qwen3",
        api_base=f"{os.environ['TRITON_CHAT_TEST_URL']}/v1",
        api_key="unused",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        timeout=30,
    )


class Weather:
    """The agent's tool; it remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def get_weather(self, location: str, unit: str) -> str:
        """Get the current weather in a location.

        Args:
            location: The city and state, e.g. San Francisco, CA
            unit: celsius or fahrenheit
        """
        self.calls.append((location, unit))
        return f"It is 59.0 {unit} in {location}."


async def test_the_weather_agent_whole(llm: OpenAILike) -> None:
    """One call of the tool, then the answer; examples/llamaindex_agent.py is the same, streamed."""
    weather = Weather()
    agent = FunctionAgent(tools=[weather.get_weather], llm=llm, streaming=False)
    answer = await agent.run("What's the weather like in Boston today?")
    assert weather.calls == [("Boston, MA", "fahrenheit")]
    assert str(answer) == "It is 59.0 °F in Boston, MA. 🌤️"
    assert [call.tool_name for call in answer.tool_calls] == ["get_weather"]


async def test_parallel_calls(llm: OpenAILike) -> None:
    weather = Weather()
    agent = FunctionAgent(tools=[weather.get_weather], llm=llm)
    answer = await agent.run("Compare the weather of Oslo and Rome.")
    assert sorted(weather.calls) == [("Oslo", "celsius"), ("Rome", "celsius")]
    assert str(answer) == "The same in both."


async def test_the_weather_agent_that_reasons_in_text(llm: OpenAILike) -> None:
    """A ReAct agent reads its calls from plain text."""
    weather = Weather()
    answer = await ReActAgent(tools=[weather.get_weather], llm=llm).run("How warm is it in Paris?")
    assert weather.calls == [("Paris", "celsius")]
    assert str(answer) == "59.0 °C, which would be a record."


def test_chat_whole_and_streamed(llm: OpenAILike) -> None:
    messages = [ChatMessage(role="user", content="Who are you?")]
    whole = llm.chat(messages).message.content
    streamed = "".join(part.delta or "" for part in llm.stream_chat(messages))
    assert whole == streamed == "我是通义千问。"


async def test_chat_asynchronous(llm: OpenAILike) -> None:
    messages = [ChatMessage(role="user", content="Who are you?")]
    parts = [part.delta or "" async for part in await llm.astream_chat(messages)]
    assert "".join(parts) == (await llm.achat(messages)).message.content == "我是通义千问。"


def test_completion_of_a_chat_model(llm: OpenAILike) -> None:
    assert llm.complete("Who are you?").text == "我是通义千问。"


class Report(BaseModel):
    """A weather report."""

    location: str
    temperature: float


def test_structured_prediction(llm: OpenAILike) -> None:
    """A forced call of a tool made from the class."""
    report = llm.structured_predict(Report, PromptTemplate("Read the report: {text}"), text="Boston has 59.0")
    assert report == Report(location="Boston", temperature=59.0)
