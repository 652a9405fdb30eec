# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.chat.arguments import read_arguments
from common.checks import check_tree


def read(value: Any) -> dict[str, Any]:
    return read_arguments(value, "arguments")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"city": "Bos', {"city": "Bos"}),
        ('{"city": "Boston"', {"city": "Boston"}),
        ('{"city": "Boston",', {"city": "Boston"}),
        ('{"city": "Boston", "un', {"city": "Boston"}),
        ('{"city": "Boston", "unit"', {"city": "Boston"}),
        ('{"city": "Boston", "unit": ', {"city": "Boston"}),
        ('{"city": "Boston", "days": tr', {"city": "Boston"}),
        ('{"city": "Boston", "days": -', {"city": "Boston"}),
        ('{"days": 12', {"days": 12}),
        ('{"a": {"b": [1, {"c": "d', {"a": {"b": [1, {"c": "d"}]}}),
        ('{"a": {"b": ', {"a": {}}),
        ('{"a": [', {"a": []}),
        ('{"a": "x\\', {"a": "x"}),
        ('{"a": "x\\\\', {"a": "x\\"}),
        ('{"a": "x\\u4f', {"a": "x"}),
        ('{"a": "x\\ud83d', {"a": "x\ufffd"}),
        ('{"a": "{[,\\"', {"a": '{[,"'}),
        ('"{\\"city\\": \\"Bos', {"city": "Bos"}),
        ('"{\\"city\\": \\"Boston\\"}"', {"city": "Boston"}),
    ],
)
def test_cut_arguments_are_read_up_to_the_cut(text: str, arguments: dict[str, Any]) -> None:
    assert read(text) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "city=Boston",
        '{"a": 1}}',
        '{"a": 1]',
        "{'a': 1}",
        "{'a': 1",
        '{"a": ' + "[" * 100_000,
        '{"a": ' + "[" * 70 + "]" * 70,
        '{"a": 1, "b" ' + " " * 100_000 + '"',
    ],
)
def test_a_text_that_is_no_json_is_kept(text: str) -> None:
    assert read(text) == {"arguments": text}


def test_values_that_are_no_object_are_kept() -> None:
    assert read("5") == {"arguments": 5}
    assert read('["Boston"]') == read(["Boston"]) == {"arguments": ["Boston"]}
    assert read('"Boston"') == {"arguments": "Boston"}


OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)  # Time is not what is tested, and the machine may be busy.
@given(OBJECTS, st.booleans(), st.integers(min_value=1))
def test_any_cut_of_an_object_is_an_object(arguments: dict[str, Any], ascii_only: bool, cut: int) -> None:
    text = json.dumps(arguments, ensure_ascii=ascii_only)
    assert read(text) == arguments
    part = read(text[: cut % len(text) or 1])
    check_tree(part, "arguments")
    assert set(part) <= set(arguments)


@settings(deadline=None)  # Time is not what is tested, and the machine may be busy.
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_an_object(text: str) -> None:
    check_tree(read(text), "arguments")
