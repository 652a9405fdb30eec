# SPDX-License-Identifier: Apache-2.0
"""The forms of calls that guides force: what families' templates render is allowed, and what is allowed is read back."""

import json
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema
import pytest

from common.answer_options import AnswerOptions
from common.chat.text_arguments import text_arguments
from common.errors import RequestError
from families.parsers import TOOL_FORMATS, AnswerFormat, ChatParser
from families.parsers.formats import GENERIC, REASONING_FORMATS, CallForm
from preprocessing.guides.build import Guide, Reasoning
from preprocessing.guides.schemas import prepare_schema
from preprocessing.guides.tool_calls import LIMITED_STYLES, fitted
from tests.support.answer_corpus import CORPUS, TOOLS, Sample
from tests.support.answers import Answer, parse
from tests.support.guides import guide_of, refused, tool
from tests.unit.preprocessing.guides.test_random_schemas import NAMES, random_schema

xgrammar = pytest.importorskip("xgrammar")

FORMS = sorted(name for name, one in TOOL_FORMATS.items() if one.form)
WITHOUT = sorted(name for name, one in TOOL_FORMATS.items() if not one.form)
STYLES = sorted({form.style for name in FORMS if (form := TOOL_FORMATS[name].form)} - {"json"})
# The turns of the corpus that are calls alone.
TURNS = {
    *("one call", "call without arguments", "nested objects and arrays", "empty string", "spaces around strings"),
    *("string with lines, quotes, markup and emoji", "strings that look like JSON", "null, enum and untyped"),
    *("parallel calls", "reasoning, call", "reasoning, calls", "several calls"),
}
# Turns that a family writes, but guides do not force.
NOT_FORCED = {
    "gigachat3": {"parallel calls"},
    "llama3_json": {"parallel calls"},
    "openai": {"several calls"},  # The engine stops at the first call's end.
    # The corpus has the form that vLLM's template asks for.
    "phi4_mini_json": TURNS,
    # Calls as in Python; guides force JSON, which is read too.
    "pythonic": TURNS,
    # Python's constants; guides have JSON's, which are read too.
    "seed_oss": {"nested objects and arrays", "null, enum and untyped", "parallel calls", "reasoning, calls"},
}
CLOSING = {"openai": "<|call|>"}  # Ends an answer, so that the corpus has it only between calls.
# Arrays and objects have parts: an empty element of MiniMax M3's does not say what it is.
KINDS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "flag": {"type": "boolean"},
        "one of": {"enum": ["x", "y z"]},
        "parts": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3},
        "inner": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
    "required": ["text", "count"],
    "additionalProperties": False,
}
WALKED = [tool("find", KINDS, strict=True), tool("find_more", KINDS, strict=True), tool("now", None, strict=True)]
WORDS = [*"abxyz013", "find", "now", "true", "false", "null", "text", "count", "one of", "y z", "ü", "<b>", "</", "\\n"]


@lru_cache
def bytewise() -> Any:
    """A compiler for a vocabulary of single bytes."""
    vocabulary = [bytes([byte]) for byte in range(256)] + [b"<end>"]
    info = xgrammar.TokenizerInfo(
        vocabulary, vocab_type=xgrammar.VocabType.RAW, vocab_size=len(vocabulary), stop_token_ids=[256]
    )
    return xgrammar.GrammarCompiler(info)


@lru_cache(maxsize=512)
def compiled(guide: Guide) -> Any:
    compiler = bytewise()
    compile_guide = compiler.compile_structural_tag if guide.guide_type == "structural_tag" else None
    return (compile_guide or compiler.compile_json_schema)(guide.guide)


def allows(guide: Guide | None, text: str) -> bool:
    assert guide is not None
    matcher = xgrammar.GrammarMatcher(compiled(guide))
    return all(matcher.accept_token(item) for item in [*text.encode(), 256])


def answer_format(name: str) -> AnswerFormat:
    return AnswerFormat(CORPUS[name].reasoning if name in CORPUS else None, tool_parser=name)


def state(name: str, sample: Sample) -> Reasoning:
    if sample.open:
        return "open"
    return "may_open" if sample.reasoning and CORPUS[name].reasoning else "none"


def rendered(name: str) -> list[Sample]:
    """The calls of a format's corpus as its template renders them."""
    left_out = NOT_FORCED.get(name, set())
    return [
        sample
        for sample in CORPUS[name].samples
        if (turn := sample.name.removeprefix("compact: ").removeprefix("open: ")) in TURNS
        and turn not in left_out
        and sample.calls
    ]


RENDERED = [
    pytest.param(name, one, id=f"{name}-{one.name}") for name in FORMS if name in CORPUS for one in rendered(name)
]


def form_of(name: str) -> CallForm:
    form = TOOL_FORMATS[name].form
    assert form
    return form


@pytest.mark.parametrize(("name", "sample"), RENDERED)
def test_what_the_template_renders_is_allowed(name: str, sample: Sample) -> None:
    form, reasoning = form_of(name), state(name, sample)
    text = sample.answer + CLOSING.get(name, "")
    single = len(sample.calls) == 1
    choices: list[tuple[Any, bool, bool]] = [("required", True, True), ("required", False, single)]
    if single:
        choices.append(({"type": "function", "function": {"name": sample.calls[0][0]}}, True, True))
        other = "search" if sample.calls[0][0] == "now" else "now"
        choices.append(({"type": "function", "function": {"name": other}}, True, False))
    for choice, parallel, expected in choices:
        guide = guide_of(answer_format(name), reasoning, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel)
        assert allows(guide, text) is expected, (choice, parallel)
        wrong = text.replace(sample.calls[0][0], "get_postcode")
        assert not allows(guide, wrong)
        if "city" in sample.calls[0][1] and single:
            assert not allows(guide, text.replace("city", "town"))
    strict = [{"type": "function", "function": {**one["function"], "strict": True}} for one in TOOLS]
    constrained: list[dict[str, Any]] = [{}, {"response_format": {"type": "json_object"}}]
    for fields in constrained:
        if form.style in LIMITED_STYLES and fields:
            continue
        guide = guide_of(answer_format(name), reasoning, tools=strict, **fields)
        if form.trigger or fields:
            assert allows(guide, text)
        if form.trigger and not fields:
            assert not allows(guide, text.replace(sample.calls[0][0], "get_postcode"))


def walk(guide: Guide, name: str, rng: random.Random) -> str:
    """Random text that a guide allows, with much markup and no whitespace that is not needed."""
    form, markup = form_of(name), TOOL_FORMATS[name].markup
    texts = [form.begin, form.middle, form.end, *(form.around or ()), *(form.brackets or ()), form.separator or ""]
    markers = {*(part for text in texts for part in text.split("{free}")), *(markup.markers if markup else ())} - {""}
    vocabulary = sorted({*WORDS, *markers, *"".join(markers), *map(chr, range(32, 127)), "\n"})
    end = len(vocabulary)
    matcher = xgrammar.GrammarMatcher(_compiler(tuple(vocabulary)).compile_structural_tag(guide.guide))
    bitmask = xgrammar.allocate_token_bitmask(1, end + 1)
    written: list[str] = []
    for _ in range(4000):
        matcher.fill_next_token_bitmask(bitmask)
        row = bitmask[0].tolist()
        allowed = [item for item in range(end + 1) if row[item // 32] >> (item % 32) & 1]
        assert allowed, "".join(written)
        if name == "openai" and vocabulary.index("z") in allowed:
            # Within a text: a marker is one token there, which ends the message wherever it stands.
            allowed = [item for item in allowed if item == end or vocabulary[item] not in markers]
        solid = [item for item in allowed if item == end or vocabulary[item].strip()] or allowed
        marked = (
            [item for item in solid if (item < end and vocabulary[item] in markers) or vocabulary[item] == '"']
            if end not in solid
            else [end]
        )
        chosen = rng.choice(marked if marked and rng.random() < 0.3 else solid)
        assert matcher.accept_token(chosen)
        if chosen == end:
            return "".join(written)
        written.append(vocabulary[chosen])
    raise AssertionError("endless: " + "".join(written)[-300:])


@lru_cache
def _compiler(vocabulary: tuple[str, ...]) -> Any:
    info = xgrammar.TokenizerInfo(
        [*(word.encode() for word in vocabulary), b"<end>"],
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary) + 1,
        stop_token_ids=[len(vocabulary)],
    )
    return xgrammar.GrammarCompiler(info)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_allowed_is_read_back(name: str) -> None:
    for parallel in (True, False):
        guide = guide_of(answer_format(name), tools=WALKED, tool_choice="required", parallel_tool_calls=parallel)
        assert guide and guide.guide_type == "structural_tag"
        for seed in range(6):
            text = walk(guide, name, random.Random(seed))
            options = AnswerOptions(
                chat=True,
                tools=True,
                tool_choice="required",
                text_arguments=text_arguments(WALKED),
                reasoning_open=False,
            )
            answer = parse(ChatParser(answer_format(name), options), text)
            assert answer == Answer("", "", answer.calls), text
            assert answer.calls and (parallel or len(answer.calls) == 1), text
            for function, arguments in answer.calls:
                values = json.loads(arguments)
                if function == "now":
                    assert values == {}
                else:
                    assert function in ("find", "find_more")
                    jsonschema.validate(values, KINDS)


@pytest.mark.parametrize("name", [name for name in FORMS if form_of(name).leads])
def test_markup_before_calls(name: str) -> None:
    form = form_of(name)
    sample = next(one for one in CORPUS[name].samples if one.name == "one call")
    guide = guide_of(answer_format(name), tools=TOOLS, tool_choice="required")
    options = AnswerOptions(chat=True, tools=True, tool_choice="required", reasoning_open=False)
    for lead in (*form.leads, "".join(form.leads)):
        assert allows(guide, lead + sample.answer)
        answer = parse(ChatParser(answer_format(name), options), lead + sample.answer)
        assert answer == Answer("", "", [["get_weather", '{"city": "Paris"}']])


@pytest.mark.parametrize("name", WITHOUT)
def test_formats_without_a_form_have_the_generic_one_when_forced(name: str) -> None:
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "x"}}\n</tool_call>'
    family = answer_format(name)
    reasoning = REASONING_FORMATS[family.reasoning] if family.reasoning else None
    guide = guide_of(family, "open" if reasoning else "none", tools=TOOLS, tool_choice="required")
    text = f"Hm.{reasoning.close}{call}" if reasoning else call
    assert allows(guide, text) and TOOL_FORMATS[GENERIC].form
    options = AnswerOptions(chat=True, tools=True, tool_choice="required", reasoning_open=bool(reasoning))
    expected = Answer("", "Hm." if reasoning else "", [["get_weather", '{"city": "x"}']])
    assert parse(ChatParser(family, options), text) == expected
    # What the model calls of its own accord is free, strict or not.
    assert guide_of(family, tools=[tool("f", strict=True)]) is None
    assert refused(family, tools=[tool("f")], response_format={"type": "json_object"}).param == "tools"


@pytest.mark.parametrize("name", sorted(REASONING_FORMATS))
def test_response_format_after_reasoning(name: str) -> None:
    family, form = AnswerFormat(name), REASONING_FORMATS[name]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answers = [f'{form.before_answer}{{"a": 1}}{form.after_answer}']
    if not form.channels:
        answers += ['{"a": 1}', form.before_answer + '{"a": 1}']
    block = form.close + form.after
    for answer in answers:
        for reasoning, text, thought in (
            ("none", answer, ""),
            ("open", f"Hm {{.{block}{answer}", "Hm {."),
            ("may_open", f"{form.open}Hm {{.{block}{answer}", "Hm {."),
            ("may_open", answer, ""),
        ):
            guide = guide_of(family, reasoning, response_format=response_format)  # type: ignore[arg-type]
            assert allows(guide, text), (reasoning, text)
            assert not allows(guide, text.replace("1", "x"))
            options = AnswerOptions(chat=True, reasoning_open=reasoning == "open")
            assert parse(ChatParser(family, options), text) == Answer('{"a": 1}', thought, [])


def schemas(seed: int, count: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """Random prepared schemas of arguments, and whether best effort is enough."""
    rng = random.Random(seed)
    for _ in range(count):
        properties = {name: random_schema(rng, 1, 0) for name in rng.sample(NAMES, 2)}
        schema: dict[str, Any] = {
            "type": "object",
            "properties": properties,
            "required": rng.sample(list(properties), 1),
        }
        if rng.random() < 0.2:
            schema["additionalProperties"] = rng.choice([True, False, {"type": "string"}])
        again = {"type": "object", "properties": {"a": {"$ref": "#/$defs/again"}}}
        schema["$defs"] = {"one": random_schema(rng, 1, 0), "again": again}
        best_effort = rng.random() < 0.5
        try:
            yield prepare_schema(schema, "schema", best_effort=best_effort), best_effort
        except RequestError:
            continue


@pytest.mark.parametrize("style", STYLES)
def test_prepared_schemas_compile_in_every_notation(style: str) -> None:
    taken = 0
    for schema, best_effort in schemas(7, 120):
        try:
            schema = fitted(schema, style, best_effort=best_effort)
        except ValueError:
            assert style in LIMITED_STYLES
            continue
        part = {"type": "json_schema", "json_schema": schema, "style": style}
        xgrammar.Grammar.from_structural_tag(json.dumps({"type": "structural_tag", "format": part}))
        taken += 1
    assert taken > 30


OPEN = {"type": "object", "additionalProperties": {"type": "integer"}}


class TestNotationsThatCannotBeEnforced:
    JSON_CALL = '[{"name": "f", "arguments": {"a": 1}}]'

    def test_forced_calls_are_json_then(self) -> None:
        family = answer_format("minimax_m3")
        guide = guide_of(family, tools=[tool("f", OPEN)], tool_choice="required")
        assert guide and guide.guide_type == "json_schema" and allows(guide, self.JSON_CALL)
        guide = guide_of(family, "open", tools=[tool("f", OPEN)], tool_choice="required")
        assert allows(guide, f"Hm.</mm:think>{self.JSON_CALL}")
        options = AnswerOptions(chat=True, tools=True, tool_choice="required", reasoning_open=True)
        answer = parse(ChatParser(family, options), f"Hm.</mm:think>{self.JSON_CALL}")
        assert answer == Answer("", "Hm.", [["f", '{"a": 1}']])

    def test_strict_tools_are_refused(self) -> None:
        family = answer_format("minimax_m3")
        for schema in (OPEN, {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}}):
            error = refused(family, tools=[tool("g"), tool("f", schema, strict=True)])
            assert error.param == "tools" and error.message.startswith("tools[1].function.parameters has ")
        # Others are free.
        guide = guide_of(family, tools=[tool("f", OPEN), tool("g", strict=True)])
        begin = form_of("minimax_m3").around
        assert begin and form_of("minimax_m3").begin
        text = f'Hi.{begin[0]}{form_of("minimax_m3").begin}f">anything{form_of("minimax_m3").end}{begin[1]}'
        assert allows(guide, text)

    @pytest.mark.parametrize("name", [name for name in FORMS if form_of(name).style != "json"])
    def test_engines_that_know_no_notations(self, name: str) -> None:
        family = answer_format(name)
        tools = [tool("f", OPEN, strict=True)]
        guide = guide_of(family, call_styles=False, tools=tools, tool_choice="required")
        assert allows(guide, self.JSON_CALL)
        options = AnswerOptions(chat=True, tools=True, tool_choice="required", reasoning_open=False)
        assert parse(ChatParser(family, options), self.JSON_CALL).calls == [["f", '{"a": 1}']]
        assert guide_of(family, call_styles=False, tools=tools) is None
        with pytest.raises(RequestError, match="cannot be combined"):
            guide_of(family, call_styles=False, tools=tools, response_format={"type": "json_object"})
