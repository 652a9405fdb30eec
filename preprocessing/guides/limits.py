# SPDX-License-Identifier: Apache-2.0
"""Limits of the work that a guide may cause in the grammar compiler and in each decoding step.

All running requests share both, and the engine cannot stop a compilation or a step, so slow guides are refused in
advance. The limits were measured with xgrammar 0.2.8 and a vocabulary of 151,936 on two cores: a guide within them
compiles in a few seconds at most. The comment of each limit gives times beyond it.
"""

import re
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from common.checks import PositionError
from preprocessing.guides.json_values import objects

MAX_PATTERN = 8192  # characters; 64 Ki took 0.6 s, 1 Mi more than 40 s
MAX_GRAMMAR = 65_536  # characters; 2,000 rules took 0.3 s, 20,000 more than 40 s
MAX_GUIDE = 524_288  # characters of a whole guide, all tools' schemas together
MAX_RULES = 2000
MAX_GROUPS = 32  # nested groups; 50,000 parentheses took the parser more than 40 s
MAX_QUANTIFIERS = 250  # ?, *, + and {} of a pattern; 500 optional letters took 2.6 s, 2,000 more than 40 s
MAX_COUNT = 100_000  # in {n,m}, maxLength, minItems and similar
MAX_NESTED_COUNT = 1000  # product of nested counts; 100 x 100 made each step take 20 ms
MAX_LOOPS = 3  # nested repetitions; ((((a+a)+a)+a)+a)+ made 300 steps take more than 8 s
MAX_SCHEMA_WORK = 1_000_000  # approximate microseconds of compiling, see `_work`

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
# Possessive, as blanks that could belong to several repetitions would take their number to the power of four.
_QUANTIFIER = re.compile(r"([?*+])|\{\s*+(\d*+)\s*+(,?)\s*+(\d*+)\s*+\}")
# Text that may hide brackets and quantifiers: escapes, classes, and in grammars strings and comments. One that is not
# closed reaches to the end, or every bracket of a row would be followed to the end in vain.
_CLASS = r"\[\^?\]?(?:\\.|[^\]\\])*+(?:\]|\\?\Z)"
_OPAQUE = re.compile(rf"\\.|{_CLASS}", re.DOTALL)
_OPAQUE_IN_GRAMMARS = re.compile(
    rf'"(?:\\.|[^"\\])*+(?:"|\\?\Z)|\'(?:\\.|[^\'\\])*+(?:\'|\\?\Z)|{_CLASS}|#[^\n]*', re.DOTALL
)
# A count with more digits than this is too large.
_DIGITS = 9


def check_pattern(pattern: str, where: str) -> None:
    """Raise RequestError for a regular expression that would be slow to compile or to match."""
    if len(pattern) > MAX_PATTERN:
        raise PositionError(where, f"is longer than {MAX_PATTERN} characters")
    _check_repetition(_OPAQUE.sub("x", pattern), where, MAX_QUANTIFIERS)


def check_grammar(ebnf: str, where: str) -> None:
    """Raise RequestError for a grammar that would be slow to compile."""
    if len(ebnf) > MAX_GRAMMAR:
        raise PositionError(where, f"is longer than {MAX_GRAMMAR} characters")
    bare = re.sub(r"\s+", "", _OPAQUE_IN_GRAMMARS.sub("x", ebnf))
    if bare.count("::=") > MAX_RULES:
        raise PositionError(where, f"has more than {MAX_RULES} rules")
    _check_repetition(bare, where, MAX_RULES)


def check_schema(schema: dict[str, Any], where: str) -> None:
    """Raise RequestError for a JSON schema that would be slow to compile; `check_tree` limits its depth."""
    work = 0
    for one in objects(schema):
        work += _work(one, where)
        if work > MAX_SCHEMA_WORK:
            raise PositionError(where, "is too large: fewer properties, values or shorter texts are needed")


def check_size(guide: str, where: str) -> None:
    """Raise RequestError for a guide that is too large as a whole."""
    if len(guide) > MAX_GUIDE:
        raise PositionError(where, f"makes a guide of more than {MAX_GUIDE} characters")


def check_structure(value: Any, where: str) -> None:
    """Raise RequestError for a structural tag, as parsed JSON, with a part that would be slow."""
    check_schema({"structure": value}, where)
    for one in objects(value):
        for name, check in (("pattern", check_pattern), ("grammar", check_grammar)):
            if isinstance(one.get(name), str):
                check(one[name], where)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Properties of a part of a pattern.

    loops: depth of nested repetitions of variable length. counts: upper bounds of the counted ones among them.
    nullable: it can be empty. firm: it holds something outside its loops that cannot be empty.
    """

    loops: int = 0
    counts: tuple[int, ...] = ()
    nullable: bool = False
    firm: bool = True


def _check_repetition(bare: str, where: str, max_quantifiers: int) -> None:
    """Check groups and repetitions of a text whose atoms are replaced by single characters."""
    # The alternatives of the whole and of each open group, each a list of pieces in order.
    open_groups: list[list[list[_Piece]]] = [[[]]]
    quantifiers, position = 0, 0
    while position < len(bare):
        char, found = bare[position], _QUANTIFIER.match(bare, position)
        alternative = open_groups[-1][-1]
        if found and alternative:
            quantifiers += 1
            alternative[-1] = _repeated(alternative[-1], found, where)
        elif char == "(":
            open_groups.append([[]])
            if len(open_groups) > MAX_GROUPS + 1:
                raise PositionError(where, f"has groups more than {MAX_GROUPS} deep")
        elif char == ")" and len(open_groups) > 1:
            group = _group(open_groups.pop())
            open_groups[-1][-1].append(group)
        elif char == "|":
            open_groups[-1].append([])
        else:
            alternative.append(_Piece())
        position = found.end() if found else position + 1
    if quantifiers > max_quantifiers:
        raise PositionError(where, f"has more than {max_quantifiers} repetitions")


def _group(alternatives: list[list[_Piece]]) -> _Piece:
    pieces = [piece for alternative in alternatives for piece in alternative]
    firm = all(
        any(piece.firm and not piece.nullable for piece in one) or not any(piece.loops for piece in one)
        for one in alternatives
    )
    return _Piece(
        loops=max((piece.loops for piece in pieces), default=0),
        counts=max((piece.counts for piece in pieces), key=prod, default=()),
        nullable=any(all(piece.nullable for piece in one) for one in alternatives),
        firm=firm,
    )


def _repeated(piece: _Piece, found: re.Match[str], where: str) -> _Piece:
    low, high = _bounds(found, where)
    nullable = piece.nullable or low == 0
    if low == high or high == 1:
        return replace(piece, nullable=nullable)
    # Repeating a piece that can be empty, or that consists of loops, matches the same text in very many ways: 300 steps
    # of (a*)*, ((a+)+)+ and (.{0,10}){0,10} took more than 8 s each. With one plain loop, (a+)+, they took 0.2 s.
    if piece.loops and (piece.nullable or (not piece.firm and (piece.loops > 1 or piece.counts or high))):
        raise PositionError(
            where, "repeats something that is itself a repetition or may be empty; write it as one repetition"
        )
    counts = piece.counts if high is None else (*piece.counts, high)
    if piece.loops + 1 > MAX_LOOPS or (len(counts) > 1 and prod(counts) > MAX_NESTED_COUNT):
        limit = f"more than {MAX_LOOPS} deep or for more than {MAX_NESTED_COUNT} together"
        raise PositionError(where, f"has repetitions in each other, {limit}")
    return _Piece(loops=piece.loops + 1, counts=counts, nullable=nullable, firm=False)


def _bounds(found: re.Match[str], where: str) -> tuple[int, int | None]:
    """The least and the greatest count that a quantifier allows; None for no upper bound."""
    sign, low, comma, high = found.groups()
    if sign:
        return {"?": (0, 1), "*": (0, None), "+": (1, None)}[sign]
    if max(len(low), len(high)) > _DIGITS or max(int(low or 0), int(high or 0)) > MAX_COUNT:
        raise PositionError(where, f"has a repetition of more than {MAX_COUNT}")
    least = int(low or 0)
    return least, (int(high) if high else None if comma else least)


def _work(schema: dict[str, Any], where: str) -> int:
    """The approximate time in microseconds that one object of a schema takes to compile.

    Measured: 500 optional properties took 1.3 s, growing with the square; 50 with limits on their number 0.3 s; 10,000
    values 10 s; a text of 64 Ki characters 0.6 s.
    """
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, int | float) and not isinstance(count, bool) and not count <= MAX_COUNT:
            raise PositionError(where, f"has a {name} of more than {MAX_COUNT}")
    properties, values = schema.get("properties"), schema.get("enum")
    names = list(properties) if isinstance(properties, dict) else []
    texts = [*names, *(values if isinstance(values, list) else []), schema.get("const")]
    work = 4 * len(names) ** 2 + len(texts) ** 2 // 10
    work += sum((len(text) // 64) ** 2 for text in texts if isinstance(text, str))
    if "minProperties" in schema or "maxProperties" in schema:
        work += 4 * len(names) ** 3
    pattern, patterns = schema.get("pattern"), schema.get("patternProperties")
    for one in [pattern, *(patterns if isinstance(patterns, dict) else [])]:
        if isinstance(one, str):
            check_pattern(one, where)
            work += len(one)
    return work
