# SPDX-License-Identifier: Apache-2.0
"""Patterns of JSON schemas as xgrammar gets them, against Python's `re`."""

import itertools
import json
import random
import re

import pytest

from preprocessing.guides.patterns import Pattern, PatternError

xgrammar = pytest.importorskip("xgrammar")
testing = pytest.importorskip("xgrammar.testing")

CHARACTERS = 'ab^-]["\\é/.0 \n😀x'


def grammar(text: str) -> object:
    return xgrammar.Grammar.from_json_schema(json.dumps({"type": "string", **({"pattern": text} if text else {})}))


def _class(rng: random.Random) -> str:
    parts = [
        "-".join(map(re.escape, sorted(rng.sample('!"#+-.0aZ[]^_`b~é', 2))))
        if rng.random() < 0.4
        else rng.choice([re.escape(rng.choice(CHARACTERS)), r"\d", r"\w"])
        for _ in range(rng.randint(1, 4))
    ]
    return f"[{rng.choice(('', '', '', '^'))}{''.join(parts)}]"


def _random(rng: random.Random, depth: int) -> str:
    kind = rng.random()
    if depth == 0 or kind < 0.35:
        return rng.choice([re.escape(rng.choice(CHARACTERS)), _class(rng), _class(rng), ".", r"\d", r"\S"])
    if kind < 0.55:
        return "".join(_random(rng, depth - 1) for _ in range(rng.randint(1, 3)))
    if kind < 0.7:
        return "(?:" + "|".join(_random(rng, depth - 1) for _ in range(rng.randint(1, 3))) + ")"
    return f"(?:{_random(rng, depth - 1)}){rng.choice(['*', '+', '?', '{2}', '{1,2}'])}"


@pytest.mark.parametrize("seed", range(8))
def test_random_patterns(seed: int) -> None:
    """What a rewritten pattern allows is JSON whose text the pattern is found in."""
    rng = random.Random(seed)
    texts = ["", *CHARACTERS, *("".join(rng.choice(CHARACTERS) for _ in range(rng.randint(2, 4))) for _ in range(60))]
    accepted = 0
    for _ in range(25):
        # Python's $ also matches before a last line break.
        text = rng.choice(["^", ""]) + _random(rng, 2).replace("\\\n", "\\n") + rng.choice([r"\Z", ""])
        pattern = Pattern(text.replace(r"\Z", "$"))
        rewritten = grammar(pattern.rewritten())
        for one in texts:
            found = re.search(text, one, re.ASCII) is not None
            assert pattern.matches(one) is found, (text, one)
            for raw in (json.dumps(one, ensure_ascii=False), f'"{one}"'):
                if testing._is_grammar_accept_string(rewritten, raw):
                    assert pattern.matches(json.loads(raw)), (text, raw)
                    accepted += 1
    assert accepted > 200


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^a", ["a", "abc", "aé b"], ["ba", ""]),
        ("a$", ["a", "ba"], ["ab"]),
        ("(^a$|^b$)", ["a", "b"], ["ab"]),
        ("^a|b$", ["ac", "cb"], ["ca", "bc"]),
        ('^a"b$', ['a"b'], ["ab"]),
        (r"^a\\b$", ["a\\b"], ["ab"]),
        (r"^a\nb$", ["a\nb"], ["ab"]),
        ("^(-[a-z]+)?$", ["", "-a"], ["-", "a"]),
        ("^(?:b*@)?c*$", ["b@c", "cc"], ["bc", "bbc"]),
        ("^(?:[ab]|(?:a|c|a{1,2}))$", ["a", "aa"], ["ba"]),
        (r"^[\^_]+$", ["^_"], ["a"]),
        (r"^[+\-/0-9]+$", ["-1/2+3"], ["a", ","]),
        (r"^\ud83d\ude00[\u{1F600}-\u{1F64F}]$", ["😀😃"], ["😀a"]),
        (r"^(?<year>\d{4})-\x41$", ["2024-A"], ["2024-B"]),
        ("^{a}]$", ["{a}]"], ["a"]),
        ("", ["", "abc"], []),
    ],
)
def test_patterns(pattern: str, good: list[str], bad: list[str]) -> None:
    rewritten = grammar(Pattern(pattern).rewritten())
    for texts, allowed in ((good, True), (bad, False)):
        for text in texts:
            assert Pattern(pattern).matches(text) is allowed, text
            assert testing._is_grammar_accept_string(rewritten, json.dumps(text, ensure_ascii=False)) is allowed, text


@pytest.mark.parametrize(
    ("pattern", "least", "most", "good", "bad"),
    [
        ("^[a-z]+$", 2, 5, ["ab", "abcde"], ["a", "abcdef"]),
        ("^[a-z][a-z0-9]*$", 3, 5, ["abc"], ["ab", "abcdef"]),
        ("^a|^b{2,}$", 2, 3, ["abc", "bb"], ["a", "bbbb"]),
        ("^(ab)*$", 3, 5, ["abab"], ["ab", "ababab"]),
        ("^x?$", 1, 1, ["x"], [""]),
        ("", 2, 3, ["ab"], ["a", "abcd"]),
    ],
)
def test_patterns_with_lengths(pattern: str, least: int, most: int, good: list[str], bad: list[str]) -> None:
    rewritten = grammar(Pattern(pattern).rewritten(least, most))
    for text in (*good, *bad):
        assert testing._is_grammar_accept_string(rewritten, json.dumps(text)) is (text in good), text


@pytest.mark.parametrize("pattern", ["a", "^a*b*$", "^(a|bc)*$"])
def test_lengths_that_cannot_be_built_in(pattern: str) -> None:
    with pytest.raises(PatternError, match="minLength or maxLength") as error:
        Pattern(pattern).rewritten(1, 4)
    assert not error.value.invalid


@pytest.mark.parametrize(
    ("pattern", "invalid"),
    [
        *((text, False) for text in ("(?=a)", "(?!a)", "(?<=a)", "(?i)a", r"\p{L}", r"(a)\1", r"\bx", "a$b", "a^b")),
        *((text, False) for text in ("(^a)*", "x(^a)", "[]", r"^\v$")),
        *((text, True) for text in ("[", "(", "a)", "*", "^*", "a**", "a++", "a{3,1}", "\\", "[z-a]", r"\A", r"\x4")),
        *((text, True) for text in (r"\u{110000}", r"\ud83d")),
    ],
)
def test_patterns_that_are_refused(pattern: str, invalid: bool) -> None:
    with pytest.raises(PatternError) as error:
        Pattern(pattern).rewritten()
    assert error.value.invalid is invalid


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        r"^(?!^[-+.]*$)[+-]?0*\d{0,2}\.?\d{0,1}0*$",
        r"^(?!^[-+.]*$)[+-]?0*\d{0,0}\.?\d{0,2}0*$",
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d{0,0}0*$",
    ],
)
def test_decimals_of_pydantic(pattern: str) -> None:
    texts = ["".join(part) for n in range(6) for part in itertools.product("+.01", repeat=n)]
    found = Pattern(pattern)
    assert [text for text in texts if found.matches(text)] == [text for text in texts if re.search(pattern, text)]


def test_matching_takes_polynomial_time() -> None:
    assert not Pattern("^(a+)+$").matches("a" * 300 + "b")
    assert not Pattern("^(?:a{0,100000}){100000}$").matches("b" * 10)
