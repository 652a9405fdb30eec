# SPDX-License-Identifier: Apache-2.0
"""Made-up answers of every format, in any pieces: the fields are those of the turn that was written."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.answer_options import AnswerOptions
from common.chat.text_arguments import text_arguments
from families.parsers import AnswerFormat, ChatParser
from tests.support.answer_corpus import CORPUS, TOOLS, Call
from tests.support.answers import Answer, cut, parse

BOUNDED = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
WRITTEN = sorted(name for name in CORPUS if CORPUS[name].writer)
# What reads the same at the ends of a text, where some formats trim.
WORDS = st.text("aZ09éß北🙂_", min_size=1, max_size=4)
SIGNS = st.text("aé北🙂 \n\t<>/&=:;,.'\"\\`|[]{}()#%$*+-", max_size=6)
PLACES = st.lists(st.integers(0, 10_000), max_size=8)


def texts(name: str) -> st.SearchStrategy[str]:
    """Texts that hold halves of the format's markup, and no whole tag of it."""
    form = AnswerFormat(CORPUS[name].reasoning, tool_parser=name)
    halves = [half for tag in form.markers for half in (tag[:-1], tag[1:], tag[: len(tag) // 2])]
    parts = SIGNS | WORDS | st.sampled_from([*halves, "{", "a"])
    joined = st.lists(parts, min_size=1, max_size=5).map(" ".join)
    # A letter at the end: no text is trimmed, or becomes markup with what follows it.
    return joined.map(lambda text: f"a{text}z").filter(lambda text: not any(tag in text for tag in form.markers))


def calls(name: str) -> st.SearchStrategy[list[Call]]:
    text = texts(name)
    # Empty lists and objects are not among them: MiniMax M3 writes both as nothing.
    scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.sampled_from([0.5, -2.25, 1e20]) | text
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(WORDS, inner, min_size=1, max_size=3),
        max_leaves=6,
    )
    objects = st.dictionaries(WORDS, values, min_size=1, max_size=3)
    functions = {
        "now": st.just({}),
        "write_file": st.fixed_dictionaries({}, optional={"path": text, "text": text}),
        "search": st.fixed_dictionaries(
            {},
            optional={
                "query": text,
                "filters": objects,
                "limit": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
                "tags": st.lists(text, min_size=1, max_size=3),
            },
        ),
    }
    one = st.sampled_from(sorted(functions)).flatmap(
        lambda function: functions[function].map(lambda arguments: (function, arguments))
    )
    return st.lists(one, max_size=1 if CORPUS[name].writer.single else 3)  # type: ignore[union-attr]


def parser(name: str, *, reasoning_open: bool) -> ChatParser:
    options = AnswerOptions(
        chat=True, tools=True, text_arguments=text_arguments(TOOLS), reasoning_open=reasoning_open or None
    )
    return ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_turn_is_read_as_it_was_written(name: str) -> None:
    writer = CORPUS[name].writer
    assert writer is not None

    @BOUNDED
    @given(reasoning=st.just("") | texts(name), content=st.just("") | texts(name), made=calls(name), places=PLACES)
    def check(reasoning: str, content: str, made: list[Call], places: list[int]) -> None:
        if writer.whole and made:
            content = ""
        sample = writer.sample("", reasoning=reasoning if writer.think else "", content=content, calls=made)
        for pieces in ([sample.answer], list(sample.answer), cut(sample.answer, places)):
            answer = parse(parser(name, reasoning_open=sample.open), pieces)
            assert (answer.content, answer.reasoning) == (sample.content, sample.reasoning)
            assert [function for function, _ in answer.calls] == [function for function, _ in made]
            assert [json.loads(arguments) for _, arguments in answer.calls] == [arguments for _, arguments in made]

    check()


# Pieces of JSON and of markup that tests by hand do not put together.
JSON_PIECES = [
    '{"name": "now", "arguments": ',
    '{"city": "x',
    '"}',
    "{}",
    "}",
    "]",
    "null",
    ",",
    ": ",
    '"',
    "\\",
    "now",
    "get_weather",
]


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_any_markup_is_read_alike_in_any_pieces(name: str) -> None:
    markers = AnswerFormat(CORPUS[name].reasoning, tool_parser=name).markers
    calls = [sample.answer for sample in CORPUS[name].samples if sample.calls and sample.name.startswith("one call")]
    parts = st.sampled_from([*markers, *markers, *JSON_PIECES, *calls, " ", "\n", "text"]) | SIGNS

    @BOUNDED
    @given(parts=st.lists(parts, max_size=14), places=PLACES, reasoning_open=st.booleans())
    def check(parts: list[str], places: list[int], reasoning_open: bool) -> None:
        text = "".join(parts)

        def read(pieces: list[str]) -> Answer:
            return parse(parser(name, reasoning_open=reasoning_open), pieces)

        whole = read([text])
        assert read(list(text)) == whole
        assert read(cut(text, places)) == whole

    check()
