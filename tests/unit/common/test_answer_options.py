# SPDX-License-Identifier: Apache-2.0
import pytest

from common.answer_options import AnswerOptions
from common.errors import RequestError


def test_defaults_need_no_parameters() -> None:
    assert AnswerOptions().to_parameters() == {}
    assert AnswerOptions.from_parameters({}) == AnswerOptions()


def test_every_field_survives_the_trip() -> None:
    options = AnswerOptions(
        chat=True,
        stop=("\n\n", "结束", '"quoted"'),
        stop_token_ids=(5, 6),
        include_stop=True,
        min_tokens=3,
        skip_special_tokens=False,
        inline_reasoning=True,
        enable_thinking=False,
        reasoning_open=True,
        tools=True,
        tool_choice="function:f",
        text_arguments='{"f":["a"]}',
        logprobs=True,
        top_logprobs=5,
        continuous_usage=True,
    )
    parameters = options.to_parameters()
    assert all(isinstance(value, str | int | bool) for value in parameters.values())
    assert AnswerOptions.from_parameters(parameters) == options


def test_other_parameters_are_ignored() -> None:
    assert AnswerOptions.from_parameters({"priority": 3, "min_p": "0.1"}) == AnswerOptions()


@pytest.mark.parametrize(
    ("value", "stops"),
    [
        ('["a", "b"]', ("a", "b")),
        ("plain", ("plain",)),
        ("3", ("3",)),
        ('["a", ""]', ("a",)),
        ("[" * 3000, ("[" * 3000,)),
        (["a"], ("a",)),
    ],
)
def test_stop_may_be_an_array_or_one_string(value: object, stops: tuple[str, ...]) -> None:
    assert AnswerOptions.from_parameters({"stop": value}).stop == stops


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chat", 1),
        ("top_logprobs", True),
        ("enable_thinking", "yes"),
        ("tool_choice", 3),
        ("text_arguments", {"f": ["a"]}),
        ("text_arguments", "f"),
        ("text_arguments", "[]"),
        ("text_arguments", '{"f":"a"}'),
        ("stop", 3),
        ("stop", "[1]"),
        ("stop_token_ids", "[1.5]"),
        ("stop_token_ids", "[true]"),
        ("stop_token_ids", "5"),
        ("stop_token_ids", "five"),
        ("stop_token_ids", "[" * 3000),
        ("min_tokens", "5"),
    ],
)
def test_wrong_types_name_the_parameter(name: str, value: object) -> None:
    with pytest.raises(RequestError) as caught:
        AnswerOptions.from_parameters({name: value})
    assert caught.value.param == name
