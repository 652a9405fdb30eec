# SPDX-License-Identifier: Apache-2.0
"""Tool calls of the real default model, whose chat template knows no tools."""

import json
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.integration.test_chat import say_exactly
from tests.integration.test_guides import HELLO, TOOLS

pytestmark = pytest.mark.python_engine("a script follows no guide; their refusal is in test_trtllm")
NAMED = {"type": "function", "function": {"name": "get_postcode"}}
OTHER = {"type": "json_schema", "json_schema": {"name": "other", "schema": {"type": "object"}}}


class Forecast(BaseModel):
    """Look up the forecast of a city."""

    city: Literal["Boston", "Paris"]
    days: Literal[1, 2, 3]


def ask(client: OpenAI, *, stream: bool, **request: Any) -> Any:
    request = {"model": "", "messages": HELLO, "max_tokens": 300, "temperature": 0, **request}
    if not stream:
        return client.chat.completions.create(**request).choices[0]
    with client.chat.completions.stream(**request) as events:
        return events.get_final_completion().choices[0]


def follows_schema(arguments: str) -> bool:
    given = json.loads(arguments)
    return set(given) == {"unit", "days"} and given["unit"] in ("celsius", "fahrenheit") and given["days"] in (1, 2)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_forced_calls(client, stream):
    required = ask(client, stream=stream, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    [call] = required.message.tool_calls
    assert call.function.name in ("get_weather", "get_postcode") and follows_schema(call.function.arguments)
    assert required.finish_reason == "tool_calls" and not required.message.content
    # As instructor asks.
    named = ask(client, stream=stream, tools=TOOLS, tool_choice=NAMED, response_format=OTHER)
    [call] = named.message.tool_calls
    assert call.function.name == "get_postcode" and follows_schema(call.function.arguments)
    assert named.finish_reason == "stop"


def test_one_of_the_allowed_tools(client):
    allowed = {"mode": "required", "tools": [NAMED]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    answer = ask(client, stream=False, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert [call.function.name for call in answer.message.tool_calls] == ["get_postcode"]
    assert answer.finish_reason == "tool_calls"


def test_a_response_calls(client):
    tools = [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS]
    answer = client.responses.create(
        model="", input="Hello!", tools=tools, tool_choice="required", parallel_tool_calls=False, temperature=0
    )
    [call] = answer.output
    assert (call.type, call.status) == ("function_call", "completed") and follows_schema(call.arguments)


def test_the_sdk_parses_a_strict_tool(client):
    answer = client.chat.completions.parse(
        model="",
        messages=[{"role": "user", "content": "What is the forecast of Paris for two days?"}],
        tools=[openai.pydantic_function_tool(Forecast)],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    [call] = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Forecast)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_call_among_text(client, http, stream):
    said = 'Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"days": 1}}\n</tool_call>'
    # Calls are allowed beside the guide; the bias makes the model choose the guide.
    first, *_ = http.post("/tokenize", json={"prompt": said}).json()["tokens"]
    answer = ask(client, stream=stream, tools=TOOLS, logit_bias={str(first): 100}, **say_exactly(said))
    [call] = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"days": 1}')
    assert (answer.message.content, answer.finish_reason) == ("Let me look.", "tool_calls")


def test_a_chat_with_tools_is_tokenized_as_it_is_prompted(client, http):
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"days": 1}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "59.0"},
    ]
    answer = client.chat.completions.create(model="", messages=messages, tools=TOOLS, max_tokens=1)
    tokens = http.post("/tokenize", json={"messages": messages, "tools": TOOLS}).json()["tokens"]
    assert len(tokens) == answer.usage.prompt_tokens
    prompt = http.post("/detokenize", json={"tokens": tokens}).json()["prompt"]
    assert all(json.dumps(tool) in prompt for tool in TOOLS)
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"days": 1}}\n</tool_call>' in prompt
    assert "<tool_response>\n59.0\n</tool_response>" in prompt
