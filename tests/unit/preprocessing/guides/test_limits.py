# SPDX-License-Identifier: Apache-2.0
"""Guides that would keep the grammar compiler or the decoding steps busy are refused; those of real use are not."""

import json
from typing import Any

import pytest

from common.errors import RequestError
from preprocessing.guides import limits
from preprocessing.guides.build import check_guide


def refusal(guide_type: str, guide: Any) -> str:
    with pytest.raises(RequestError) as error:
        check_guide(guide_type, guide if isinstance(guide, str) else json.dumps(guide))
    assert error.value.param == "guided_decoding_guide"
    return error.value.message


def wide(count: int, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}, **more}


@pytest.mark.parametrize(
    "pattern",
    [
        "[0-9]{3}-[0-9]{3}-[0-9]{4}",
        r"(\w+\s){1,50}\w+",
        r"(https?://)?([a-z0-9-]{1,63}\.){1,10}[a-z]{2,10}(/[^ ]{0,100})*",
        r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)",
        r"\(\){1}[({]{2}\{",
        "(a{1000}){1000}",
        "(a?b?)*",
        r"(-?[0-9]+(\.[0-9]+)?(, )?)+",
        r"[a-z]+(-[a-z]+)*( [a-z]+(-[a-z]+)*)*",
        "[(](?:[)]){2}",
        "|".join(f"word{i}" for i in range(500)),
    ],
)
def test_patterns_of_real_use(pattern: str) -> None:
    assert check_guide("regex", pattern) is not None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a" * (limits.MAX_PATTERN + 1), "longer than"),
        ("(" * 33 + "a" + ")" * 33, "groups more than 32 deep"),
        ("a?" * 251, "more than 250 repetitions"),
        ("a{100001}", "more than 100000"),
        ("a{1,999999999999999999999}", "more than 100000"),
        ("(a*)*b", "write it as one repetition"),
        ("((a+)+)+b", "write it as one repetition"),
        ("((a*b?)*c?)*", "write it as one repetition"),
        ("(a|aa|b*)*", "write it as one repetition"),
        ("(.{0,10}){0,10}", "write it as one repetition"),
        ("(a{0,100}){0,100}", "write it as one repetition"),
        ("(((a+b)+c)+d)+", "in each other"),
        ("(x(y|a{0,100}z)b{0,2}){0,100}", "in each other"),
        ("(a{2,31}b){2,33}", "in each other"),
    ],
)
def test_patterns_that_would_take_long(pattern: str, words: str) -> None:
    assert words in refusal("regex", pattern)
    if len(pattern) < limits.MAX_PATTERN:
        assert words in refusal("json_schema", {"type": "string", "pattern": pattern})
        assert words in refusal("json_schema", {"type": "object", "patternProperties": {pattern: {}}})
        assert words in refusal("structural_tag", {"format": {"type": "regex", "pattern": pattern}})


@pytest.mark.parametrize(
    ("ebnf", "words"),
    [
        ('root ::= "' + "a" * limits.MAX_GRAMMAR + '"', "longer than"),
        ("root ::= " + "(" * 33 + '"a"' + ")" * 33, "groups more than 32 deep"),
        ("\n".join(f'r{i} ::= "a"' for i in range(2001)), "more than 2000 rules"),
        ('root ::= (("a"{0,100}) "b"){0,100}', "in each other"),
    ],
)
def test_grammars_that_would_take_long(ebnf: str, words: str) -> None:
    assert words in refusal("ebnf_grammar", ebnf)
    if len(ebnf) < limits.MAX_GRAMMAR:
        assert words in refusal("structural_tag", {"format": {"type": "grammar", "grammar": ebnf}})


def test_brackets_inside_strings_classes_and_comments_are_no_groups() -> None:
    ebnf = 'root ::= "' + "(" * 100 + '" [(){}?*+]{1,5} # ((((' + "(" * 100 + "\n  | \"a{0,1000000}\" '(('"
    assert check_guide("ebnf_grammar", ebnf) is not None


@pytest.mark.parametrize(
    "schema",
    [
        wide(300),
        wide(20, minProperties=1, maxProperties=10),
        {"enum": [f"value{i}" for i in range(1000)]},
        {"type": "array", "maxItems": 1000, "items": {"type": "array", "items": {"type": "string", "maxLength": 1000}}},
        {"type": "string", "description": "x" * 20_000},
        {"type": "object", "properties": {"pattern": {"type": "string"}, "enum": {"type": "string"}}},
    ],
)
def test_schemas_of_real_use(schema: dict[str, Any]) -> None:
    assert check_guide("json_schema", json.dumps(schema)) is not None


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (wide(1000), "too large"),
        ({"$defs": {f"d{i}": wide(200) for i in range(10)}}, "too large"),
        (wide(100, maxProperties=50), "too large"),
        ({"enum": [f"value{i}" for i in range(5000)]}, "too large"),
        ({"const": "x" * 100_000}, "too large"),
        ({"type": "array", "minItems": 10**6}, "minItems of more than"),
        ({"type": "string", "maxLength": 1e300}, "maxLength of more than"),
        ({"items": {"items": {"minLength": 10**30}}}, "minLength of more than"),
    ],
)
def test_schemas_that_would_take_long(schema: dict[str, Any], words: str) -> None:
    assert words in refusal("json_schema", schema)
    assert words in refusal("structural_tag", {"format": {"type": "json_schema", "json_schema": schema}})


def test_a_deep_guide_is_refused() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"items": deep}
    assert "nested" in refusal("json_schema", deep)
    assert "not valid JSON" in refusal("json_schema", "[" * 100_000)
    assert "NUL" in refusal("regex", "a\0")
    assert "characters" in refusal("json_schema", {"description": "x" * limits.MAX_GUIDE})


@pytest.mark.parametrize("unit", [" ", "[", "[^", "[\\", '"', "'\\", "'[", "{ "])
def test_texts_without_end_are_read_once(unit: str) -> None:
    """Each took seconds to hours when every beginning was followed to the end."""
    limits.check_pattern(("a{" + unit * limits.MAX_PATTERN)[: limits.MAX_PATTERN], "pattern")
    limits.check_grammar(("root ::= a{" + unit * limits.MAX_GRAMMAR)[: limits.MAX_GRAMMAR], "grammar")
