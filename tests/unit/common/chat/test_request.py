# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.chat.request import ChatRequest
from common.errors import RequestError

USER = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def parse(**body: Any) -> ChatRequest:
    return ChatRequest.parse(json.dumps({"messages": [USER], **body}))


def refused(**body: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        parse(**body)
    return error.value


def test_defaults() -> None:
    chat = parse()
    assert chat == ChatRequest(messages=[USER])
    assert chat.add_generation_prompt
    assert chat.parallel_tool_calls


def test_null_is_the_same_as_absent() -> None:
    fields = ["tools", "tool_choice", "parallel_tool_calls", "chat_template", "chat_template_kwargs", "enable_thinking"]
    fields += ["response_format", "structured_outputs", "add_generation_prompt", "continue_final_message"]
    assert parse(**dict.fromkeys(fields)) == parse()


def test_answers_and_results_without_content() -> None:
    for role in ("assistant", "tool"):
        for message in ({"role": role}, {"role": role, "content": None}, {"role": role, "content": ""}):
            assert parse(messages=[USER, message]).messages[1] == {"role": role, "content": ""}


def test_messages_in_the_shape_of_templates() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city": "北京"}'}}
    chat = parse(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},
            {"role": "tool", "content": "59.0", "tool_call_id": "c1"},
            {"role": "assistant", "reasoning_content": "first", "reasoning": "second", "tool_calls": None},
        ]
    )
    parsed = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"city": "北京"}}}
    assert chat.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb", "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [parsed], "reasoning_content": "hm"},
        {"role": "tool", "content": "59.0", "tool_call_id": "c1"},
        {"role": "assistant", "content": "", "reasoning_content": "first"},
    ]


@pytest.mark.parametrize("arguments", [{}, [], "{}", "", " ", None, "null", "[]", "{", '{"city'])
@pytest.mark.parametrize("kind", ["function", None])
def test_calls_without_arguments(arguments: Any, kind: str | None) -> None:
    call = {"type": kind, "function": {"name": "f", "arguments": arguments}}
    chat = parse(messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    assert chat.messages[1]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "messages must be an array, not null"),
        ("hi", "messages must be an array, not a string"),
        ([], "messages must not be empty"),
        ([USER, "hi"], "messages[1] must be an object, not a string"),
        ([{"content": "x"}], "messages[0].role must be one of assistant, developer, system, tool, user, not null"),
        ([{"role": "robot", "content": "x"}], "messages[0].role must be one of"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role must be one of"),
        ([USER, USER, {"role": "user"}], "messages[2].content is missing"),
        ([{"role": "system", "content": None}], "messages[0].content is missing"),
        ([{"role": "user", "content": 5}], "messages[0].content must be a string or an array of parts"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0] must be an object"),
        (
            [{"role": "user", "content": [{"type": "audio"}]}],
            "messages[0].content[0].type must be one of image_url, text, video_url",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text must be a string, not null"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}], "takes no images"),
        ([{"role": "user", "content": "x", "name": 1}], "messages[0].name must be a string"),
        ([{"role": "assistant", "reasoning": 1}], "messages[0].reasoning must be a string"),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "messages[0].tool_calls must be an array"),
        ([{"role": "assistant", "tool_calls": [{"type": "x"}]}], "messages[0].tool_calls[0].type must be one of"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].function must be an object"),
        ([{"role": "user", "content": "a\ud800"}], "messages[0].content has a lone surrogate"),
        ([{"role": "user", "content": "x", "\udfff": 1}], "messages[0] has a key with a lone surrogate"),
    ],
)
def test_odd_messages_are_refused_by_position(messages: Any, message: str) -> None:
    error = refused(messages=messages)
    assert message in error.message
    assert error.param == "messages"


@pytest.mark.parametrize("arguments", [5, 1.5, True])
def test_odd_call_arguments(arguments: Any) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    error = refused(messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    assert error.message == "messages[1].tool_calls[0].function.arguments must be a string"


def test_errors_do_not_echo_the_input() -> None:
    error = refused(messages=[{"role": "x" * 10_000, "content": "y"}])
    assert len(error.message) < 300
    error = refused(**{"k" * 10_000: 1})
    assert len(error.message) < 200


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"a": [value]}
    return value


def test_nesting_is_bounded() -> None:
    assert parse(chat_template_kwargs={"x": nested(30)})
    error = refused(chat_template_kwargs={"x": nested(40)})
    assert "nested more than 64 levels" in error.message
    assert error.param == "chat_template_kwargs"


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, '{"messages": NaN}', '{"n": ' + "1" * 5000 + "}", "\0"])
def test_text_that_is_not_json(text: str) -> None:
    with pytest.raises(RequestError, match="is not valid JSON") as error:
        ChatRequest.parse(text)
    assert error.value.param == "messages"


def test_json_that_is_no_request() -> None:
    with pytest.raises(RequestError, match="must be a JSON object"):
        ChatRequest.parse("[]")
    assert refused(temperature=1).param == "temperature"
    assert refused(parallel_tool_calls=1).param == "parallel_tool_calls"
    assert refused(enable_thinking="no").param == "enable_thinking"
    assert refused(reasoning_effort="colossal").param == "reasoning_effort"


def test_tools() -> None:
    strict = {"type": "function", "function": {"name": "f.2-x_", "strict": True}}
    chat = parse(tools=[WEATHER, strict])
    weather, other = chat.tools
    assert (weather.name, weather.definition, weather.strict) == ("get_weather", WEATHER, False)
    assert weather.parameters == WEATHER["function"]["parameters"]
    assert (other.strict, other.parameters) == (True, {"type": "object", "properties": {}})
    assert other.definition == {"type": "function", "function": {"name": "f.2-x_"}}  # `strict` is not for the model.
    assert chat.tool_choice == "auto"
    assert parse(tools=[]).tools == ()


def test_tool_choice() -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert parse(tools=[WEATHER], tool_choice=named).tool_choice == "function:get_weather"
    assert parse(tools=[WEATHER], tool_choice="required").tool_choice == "required"
    assert parse(tools=[WEATHER], tool_choice="none").tools == ()
    assert parse(tool_choice="auto").tools == ()


@pytest.mark.parametrize(
    ("tool_choice", "message"),
    [
        ("required", "needs tools"),
        ({"type": "function", "function": {"name": "f"}}, "needs tools"),
    ],
)
def test_forced_calls_need_tools(tool_choice: Any, message: str) -> None:
    error = refused(tool_choice=tool_choice)
    assert message in error.message
    assert error.param == "tool_choice"


@pytest.mark.parametrize("tool_choice", ["any", 1, {"type": "tool"}, {"type": "function"}])
def test_odd_tool_choices(tool_choice: Any) -> None:
    assert refused(tools=[WEATHER], tool_choice=tool_choice).param == "tool_choice"


def test_choosing_a_tool_that_is_not_there() -> None:
    error = refused(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "get_postcode"}})
    assert error.message == "tool_choice.function.name 'get_postcode' is not among the request's tools"


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (5, "tools[0] must be an object, not a number"),
        ({"type": "web_search"}, "tools[0].type must be one of function, not 'web_search'"),
        ({"type": "function"}, "tools[0].function must be an object"),
        ({"type": "function", "function": {"name": "a b"}}, "tools[0].function.name must match"),
        ({"type": "function", "function": {"name": "f\n"}}, "tools[0].function.name must match"),
        ({"type": "function", "function": {"name": "x" * 65}}, "tools[0].function.name must match"),
        ({"type": "function", "function": {"name": "f", "parameters": []}}, "tools[0].function.parameters must be"),
        ({"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}, "must be one of object"),
        ({"type": "function", "function": {"name": "f", "strict": "yes"}}, "tools[0].function.strict must be a bool"),
        ({"type": "function", "function": {"name": "f", "description": 1}}, "tools[0].function.description must be"),
    ],
)
def test_odd_tools(tool: Any, message: str) -> None:
    error = refused(tools=[tool])
    assert message in error.message
    assert error.param == "tools"


@pytest.mark.parametrize("kind", [["object", "null"], ["object"], None])
def test_parameters_that_may_be_an_object_are_one(kind: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": kind, "properties": {"a": {}}}}}
    (read,) = parse(tools=[tool]).tools
    assert read.parameters == {"type": "object", "properties": {"a": {}}}


def test_tool_names_are_unique() -> None:
    assert "tools[1].function.name 'get_weather' is used twice" in refused(tools=[WEATHER, WEATHER]).message


@pytest.mark.parametrize(
    ("fields", "thinking", "effort"),
    [
        ({}, None, None),
        ({"enable_thinking": False}, False, None),
        ({"chat_template_kwargs": {"enable_thinking": True, "x": 1}, "enable_thinking": False}, True, None),
        ({"chat_template_kwargs": {"thinking": False}, "reasoning_effort": "high"}, False, "high"),
        ({"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning_effort": "none"}, True, "low"),
        # The name of another thing in some template.
        ({"chat_template_kwargs": {"thinking": "text", "reasoning_effort": "no_think"}}, None, None),
        ({"reasoning_effort": "none"}, False, "none"),
        ({"reasoning_effort": "low"}, True, "low"),
    ],
)
def test_the_wish_for_reasoning(fields: dict[str, Any], thinking: bool | None, effort: str | None) -> None:
    chat = parse(**fields)
    assert (chat.thinking, chat.effort) == (thinking, effort)
    assert chat.template_kwargs == fields.get("chat_template_kwargs", {})


def test_continuing_the_last_message() -> None:
    chat = parse(messages=[USER, {"role": "assistant", "content": "So"}], continue_final_message=True)
    assert not chat.add_generation_prompt
    assert refused(continue_final_message=True).param == "continue_final_message"
    error = refused(continue_final_message=True, add_generation_prompt=True)
    assert "together with add_generation_prompt" in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "function", "name", "arguments"]), inner
        )
    ),
)


@settings(deadline=None)  # Time is not what is tested, and the machine may be busy.
@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "tool_choice", "chat_template_kwargs", "continue_final_message"]), JSON
    ),
    st.lists(JSON | st.just(USER), min_size=1, max_size=3),
)
def test_any_json_is_a_request_or_a_request_error(body: dict[str, Any], messages: list[Any]) -> None:
    for request in (body, {**body, "messages": messages}):
        try:
            chat = ChatRequest.parse(json.dumps(request))
        except RequestError as error:
            assert error.param
            assert len(error.message) < 300
        else:
            assert all(isinstance(message["content"], str) for message in chat.messages)


def test_a_template_of_the_request() -> None:
    assert parse(chat_template="{{ x }}").chat_template == "{{ x }}"
    for template in ("", "x" * 65_537, 5):
        assert refused(chat_template=template).param == "chat_template"
