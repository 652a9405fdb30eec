# SPDX-License-Identifier: Apache-2.0
"""Schemas that clients make of their types: instances are allowed, and what is allowed is valid."""

import copy
import dataclasses
import enum
import ipaddress
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Union

import jsonschema
import openai
import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, HttpUrl, PositiveInt, RootModel, conlist, constr
from typing_extensions import TypedDict

from common.errors import RequestError
from preprocessing.guides.schemas import prepare_schema
from tests.support.schema_models import Cat, Color, Dog, Node

xgrammar = pytest.importorskip("xgrammar")
testing = pytest.importorskip("xgrammar.testing")
vllm = pytest.importorskip("vllm.v1.structured_output.backend_xgrammar")


class Level(enum.IntEnum):
    LOW, HIGH = 1, 2


class Pair(NamedTuple):
    number: int
    text: str = "x"


class Address(TypedDict):
    street: str
    number: int


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5


class Texts(BaseModel):
    title: str
    description: constr(max_length=5)  # type: ignore[valid-type]
    code: constr(pattern=r"^[A-Z]{2}$")  # type: ignore[valid-type]
    slug: constr(pattern=r"^[a-z]+(-[a-z]+)*$")  # type: ignore[valid-type]
    name: constr(pattern=r"^[a-z]+$", min_length=2, max_length=4)  # type: ignore[valid-type]
    url: AnyUrl
    page: HttpUrl
    key: uuid.UUID
    four: ipaddress.IPv4Address
    six: ipaddress.IPv6Address
    secret: bytes = b"x"


class Times(BaseModel):
    day: date
    moment: datetime
    clock: time
    wait: timedelta


class Numbers(BaseModel):
    whole: int
    positive: PositiveInt
    fifth: Annotated[int, Field(multiple_of=5, ge=0, le=100)]
    share: Annotated[float, Field(gt=0, lt=1)]
    level: Level
    fixed: Literal[1, "a", None]
    one: Literal["a"]
    color: Color
    maybe: int | None = None
    either: int | str
    default: Color = Color.RED


class Containers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    numbers: conlist(int, min_length=1, max_length=3)  # type: ignore[valid-type]
    pair: tuple[int, str]
    many: tuple[int, ...]
    named: Pair
    mapping: dict[str, int]
    colors: dict[Color, int]
    kinds: dict[Literal["x", "y"], bool]
    keys: dict[uuid.UUID, int]
    prefixed: dict[Annotated[str, Field(pattern="^x")], int]
    short: dict[Annotated[str, Field(max_length=2)], int]
    address: Address
    point: Point
    pet: Annotated[Union[Cat, Dog], Field(discriminator="kind")]  # noqa: UP007 # as clients write it
    pets: list[Cat | Dog]
    tree: Node
    anything: Any = None


KEY = uuid.UUID("123e4567-e89b-12d3-a456-426614174000")
INSTANCES: list[BaseModel] = [
    Texts(
        title="a", description="abcde", code="DE", slug="a-bc", name="abc", url=AnyUrl("https://example.com/a?b"), page=HttpUrl("http://x.y/z"),
        key=KEY, four=ipaddress.IPv4Address("1.2.3.4"), six=ipaddress.IPv6Address("::1"),
    ),
    Times(
        day=date(2024, 2, 29), moment=datetime(2024, 1, 31, 10, tzinfo=UTC), clock=time(10, 30, tzinfo=UTC), wait=timedelta(hours=1)
    ),
    Numbers(
        whole=-5, positive=1, fifth=10, share=0.25, level=Level.HIGH, fixed=None, one="a", color=Color.BLUE,
        maybe=3, either="x",
    ),
    Containers(
        numbers=[1, 2], pair=(1, "x"), many=(1, 2, 3), named=Pair(1, "y"), mapping={"k": 1}, colors={Color.RED: 1},
        kinds={"x": True, "y": False}, keys={KEY: 1}, prefixed={"xyz": 1}, short={"ab": 1}, address={"street": "a", "number": 1},
        point=Point(1.5), pet=Dog(kind="dog", name="Rex"), pets=[Cat(kind="cat", lives=3), Dog(kind="dog", name="x")],
        tree=Node(value=1, children=[Node(value=2.5)]), anything=[1, {"a": None}],
    ),
    Node(value=1, children=[Node(value=2, children=[Node(value=3)])]),
    RootModel[list[Cat | None]]([Cat(kind="cat"), None]),
]  # fmt: skip
OTHERS: list[Any] = [
    *(
        None,
        True,
        0,
        1,
        -1,
        3,
        2.5,
        100,
        "",
        "a",
        "abcdef",
        "x",
        "red",
        "2024-02-30",
        "cat",
        "DE",
        "a-",
        [],
        [1],
        ["a"],
    ),
    *([1, "x"], [1, 2, 3, 4], {}, {"k": "v"}, {"x": 1}, {"y": True}, {"red": 1}, {"green": 1}, {"kind": "cow"}),
]


def grammar_of(schema: dict[str, Any], **options: bool) -> Any:
    prepared = prepare_schema(schema, "schema", **options)
    assert not vllm.has_xgrammar_unsupported_json_features(prepared)
    return xgrammar.Grammar.from_json_schema(json.dumps(prepared))


def changed(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced, left out or added to, in turn."""
    yield from OTHERS
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for part in changed(value[key]):
            other = copy.copy(value)
            other[key] = part
            yield other
        other = copy.copy(value)
        del other[key]
        yield other
    if isinstance(value, dict):
        yield {**value, "extra": 1}
    if isinstance(value, list):
        yield [*value, *value]


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda instance: type(instance).__name__)
def test_models_of_pydantic(instance: BaseModel) -> None:
    model = type(instance)
    texts = [instance.model_dump_json(), instance.model_dump_json(indent=2)]
    for schema in (model.model_json_schema(), model.model_json_schema(mode="serialization")):
        grammar = grammar_of(schema)
        assert all(testing._is_grammar_accept_string(grammar, text) for text in texts)
    grammar, validator = (
        grammar_of(model.model_json_schema()),
        jsonschema.Draft202012Validator(model.model_json_schema()),
    )
    accepted = rejected = 0
    for value in changed(json.loads(texts[0])):
        if testing._is_grammar_accept_string(grammar, json.dumps(value)):
            validator.validate(value)
            model.model_validate_json(json.dumps(value))
            accepted += 1
        else:
            rejected += 1
    assert rejected > 2 * accepted


@pytest.mark.parametrize("model", [Cat, Dog, Node, Times])
def test_strict_schemas_of_the_openai_client(model: type[BaseModel]) -> None:
    instance = {
        Cat: Cat(kind="cat", lives=3), Dog: Dog(kind="dog", name="Rex"), Node: Node(value=1, children=[Node(value=2)]),
        Times: INSTANCES[1],
    }[model]  # fmt: skip
    function = openai.pydantic_function_tool(model)["function"]
    assert function["strict"]
    for schema in (to_strict_json_schema(model), function["parameters"]):
        assert testing._is_grammar_accept_string(grammar_of(dict(schema)), instance.model_dump_json())


def test_sets_are_refused_unless_best_effort_is_enough() -> None:
    schema = RootModel[set[int]].model_json_schema()
    with pytest.raises(RequestError, match="uniqueItems cannot be enforced"):
        grammar_of(schema)
    grammar = grammar_of(schema, best_effort=True)
    assert testing._is_grammar_accept_string(grammar, "[1,2]") and not testing._is_grammar_accept_string(
        grammar, '["a"]'
    )


# Written by other versions and tools: schema, a text that it allows, and one that it does not.
OTHER_CLIENTS: list[tuple[dict[str, Any], str, str]] = [
    # pydantic 2.9: a Literal of one value.
    ({"properties": {"a": {"const": "x", "enum": ["x"], "title": "A", "type": "string"}}, "required": ["a"]}, '{"a":"x"}', '{"a":"y"}'),
    # pydantic 2.8 and older: a reference with siblings.
    (
        {
            "$defs": {"C": {"enum": ["a"], "type": "string"}},
            "properties": {"c": {"allOf": [{"$ref": "#/$defs/C"}], "default": "a", "description": "x"}},
        },
        '{"c":"a"}',
        '{"c":"b"}',
    ),
    # pydantic 2.12: a Decimal.
    ({"anyOf": [{"type": "number"}, {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", "type": "string"}]}, '"1.5"', '"."'),
    # zod: a record, a tuple, and a nullable union.
    ({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}}, '{"a":1}', '{"a":"b"}'),
    ({"type": "object", "propertyNames": {"type": "string", "enum": ["a"]}, "additionalProperties": {}, "required": ["a"]}, '{"a":1}', "{}"),
    ({"type": "array", "items": [{"type": "string"}, {"type": "number"}], "minItems": 2, "maxItems": 2}, '["a",1]', '["a"]'),
    ({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}], "description": "x"}, "null", '""'),
    ({"type": ["string", "null"], "enum": ["a", None]}, "null", '"b"'),
    ({"$ref": "#/definitions/x", "definitions": {"x": {"type": "integer"}}, "$schema": "http://json-schema.org/draft-07/schema#"}, "5", '"a"'),
    # serde of Rust: tagged alternatives.
    (
        {
            "oneOf": [
                {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string", "enum": ["a"]}}},
                {"type": "object", "required": ["kind", "n"], "properties": {"kind": {"const": "b"}, "n": {"type": "integer", "format": "uint8", "minimum": 0.0}}},
            ]
        },
        '{"kind":"b","n":3}',
        '{"kind":"b"}',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), OTHER_CLIENTS)
def test_schemas_of_other_clients(schema: dict[str, Any], good: str, bad: str) -> None:
    grammar = grammar_of(schema)
    assert testing._is_grammar_accept_string(grammar, good)
    assert not testing._is_grammar_accept_string(grammar, bad)
