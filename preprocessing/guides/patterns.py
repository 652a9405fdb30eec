# SPDX-License-Identifier: Apache-2.0
"""Rewrite the patterns of JSON schemas for xgrammar.

A pattern of JSON Schema is looked for anywhere in a text. xgrammar's matches the whole text of the JSON string, passes
over assertions, and some characters that JSON escapes end the string early. A rewritten pattern is anchored at both
ends, and writes each of its characters as it stands in JSON.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

_Ranges = tuple[tuple[int, int], ...]

_LAST = 0x10FFFF
_CARET = 0x5E
# Matches the empty text. Of patterns in ASCII xgrammar 0.2.8 makes an automaton, which also allows what they do not,
# such as "-" for ^(-[a-z]+)?$; of others it makes a grammar, which is right.
_NO_AUTOMATON = "é{0}"
# What a JSON string holds as it is: neither control characters, quotes, backslashes nor surrogates.
_PLAIN: _Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, _LAST))
_SHORT = {
    8: "b",
    9: "t",
    10: "n",
    12: "f",
    13: "r",
    0x22: '"',
    0x5C: "\\\\",
}  # As regular expressions, after a backslash.
_SETS: dict[str, _Ranges] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": (
        *((9, 13), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F)),
        *((0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    ),
}
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "0": 0}
_GROUP = re.compile(r"\(\?P?<([A-Za-z_]\w*)>|\(\?:")
_QUANTIFIER = re.compile(r"([*+?])|\{(\d+)(,?)(\d*)\}")
# pydantic's pattern of a Decimal, whose lookahead says that there is a digit.
_DECIMAL = re.compile(
    r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*(\\d\*|\\d\{0,(\d{1,4})\})\\\.\?(\\d\*|\\d\{0,(\d{1,4})\}0\*)\$"
)
_CODE = re.compile(r"x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})(?:\\u([0-9A-Fa-f]{4}))?|c([A-Za-z])")


class PatternError(ValueError):
    """A pattern that cannot be rewritten, and why; `invalid` if it is none at all."""

    def __init__(self, problem: str, *, invalid: bool = False) -> None:
        """Create the error."""
        super().__init__(problem)
        self.invalid = invalid


@dataclass(frozen=True, slots=True)
class _Item:
    """A part of a pattern that is repeated `least` to `most` times (None for no limit): characters, or a group.

    explicit: characters that the pattern names one by one, which are written with an escape where JSON needs one.
    """

    chars: _Ranges = ()
    explicit: frozenset[int] = frozenset()
    group: "tuple[_Branch, ...] | None" = None
    least: int = 1
    most: int | None = 1

    def width(self) -> tuple[int, int | None]:
        """The least and the greatest number of characters, of one repetition."""
        if self.group is None:
            return 1, 1
        widths = [branch.width() for branch in self.group]
        highs = [high for _, high in widths if high is not None]
        return min(low for low, _ in widths), max(highs) if len(highs) == len(widths) else None

    def text(self) -> str:
        atom = _class(self.chars, self.explicit) if self.group is None else f"(?:{_union(self.group)})"
        if (self.least, self.most) == (1, 1):
            return atom
        signs = {(0, 1): "?", (0, None): "*", (1, None): "+"}
        most = "" if self.most is None else str(self.most)
        counts = f"{{{self.least}}}" if self.least == self.most else f"{{{self.least},{most}}}"
        return atom + signs.get((self.least, self.most), counts)

    def ends(self, text: str, starts: set[int]) -> set[int]:
        """Where a match of all repetitions ends that begins at one of `starts`."""
        found = set(starts) if self.least == 0 else set()
        done, current = 0, starts
        while current and done != self.most:
            following = self._once(text, current)
            done += 1
            if done >= self.least and following <= found:
                break
            if done < self.least and following == current:  # Nothing but empty matches, or all is reached.
                done = self.least - 1
            if done >= self.least:
                found |= following
            current = following
        return found

    def _once(self, text: str, starts: set[int]) -> set[int]:
        if self.group is not None:
            return {end for branch in self.group for end in branch.ends(text, starts)}
        return {n + 1 for n in starts if n < len(text) and _contains(self.chars, self.explicit, ord(text[n]))}


@dataclass(slots=True)
class _Branch:
    """One of a pattern's alternatives, and whether it is anchored."""

    items: list[_Item] = field(default_factory=list)
    start: bool = False
    end: bool = False

    def width(self) -> tuple[int, int | None]:
        low, high = 0, 0
        limited = True
        for item in self.items:
            least, most = item.width()
            low += least * item.least
            if most == 0 or item.most == 0:
                continue
            if most is None or item.most is None:
                limited = False
            else:
                high += most * item.most
        return low, high if limited else None

    def text(self) -> str:
        return "".join(item.text() for item in self.items)

    def ends(self, text: str, starts: set[int]) -> set[int]:
        for item in self.items:
            starts = item.ends(text, starts)
        return starts


class Pattern:
    """A pattern of a JSON schema; raises PatternError if it is invalid or has what xgrammar does not know."""

    def __init__(self, pattern: str) -> None:
        """Read the pattern."""
        decimal = _DECIMAL.fullmatch(pattern)
        text = _without_lookahead(*decimal.groups()) if decimal else pattern
        self._branches = [_anchored(branch) for branch in _Reader(text).read()]

    def matches(self, text: str) -> bool:
        """Whether the pattern is found in the text; takes polynomial time."""
        return any(len(text) in branch.ends(text, {0}) for branch in self._branches)

    def rewritten(self, least: int = 0, most: int | None = None) -> str:
        """The pattern for xgrammar, of texts with `least` to `most` characters; empty if it allows every text.

        Raises PatternError if lengths cannot be built into the pattern, or no text has them.
        """
        branches = [bounded for branch in self._branches if (bounded := _bounded(branch, least, most))]
        if not branches:
            raise PatternError("allows no text of the length", invalid=True)
        text = _union(branches)
        if text == _ANY.text():
            return ""
        return f"^{f'(?:{text})' if len(branches) > 1 else text}{_NO_AUTOMATON}$"


_ANY = _Item(chars=((0, _LAST),), least=0, most=None)
_DOT = _Item(chars=((0, 9), (11, 12), (14, 0x2027), (0x202A, _LAST)))


def _without_lookahead(whole: str, places: str | None, fraction: str, decimals: str | None) -> str:
    """The pattern of a Decimal with the parts `whole` and `fraction`, of which one has a digit."""
    some_whole = "0+" if places == "0" else r"\d+" if places is None else rf"(?:0+\d{{0,{places}}}|\d{{1,{places}}})"
    some_fraction = "0+" if decimals == "0" else r"\d+" if decimals is None else rf"(?:\d{{1,{decimals}}}0*|0+)"
    return rf"^[+-]?(?:{some_whole}\.?{fraction}|\.?{some_fraction})$"


def _anchored(branch: _Branch) -> _Branch:
    """The branch as one that matches whole texts."""
    before, after = [] if branch.start else [_ANY], [] if branch.end else [_ANY]
    items = [*before, *branch.items, *after]
    return _Branch([_ANY] if items and all(item == _ANY for item in items) else items, start=True, end=True)


def _bounded(branch: _Branch, least: int, most: int | None) -> _Branch | None:
    """The branch limited to a length; None if it has no text of the length."""
    low, high = branch.width()
    if low >= least and (most is None or (high is not None and high <= most)):
        return branch
    if (most is not None and low > most) or (high is not None and high < least):
        return None
    varying = [n for n, item in enumerate(branch.items) if item.least != item.most or len(set(item.width())) > 1]
    if len(varying) != 1 or len(set(branch.items[varying[0]].width())) > 1:
        raise PatternError("cannot be enforced together with minLength or maxLength")
    item = branch.items[varying[0]]
    width = item.width()[0]
    others = low - width * item.least
    fewest = max(item.least, -((others - least) // width))
    limits = [limit for limit in (item.most, None if most is None else (most - others) // width) if limit is not None]
    if limits and fewest > min(limits):
        return None
    items = list(branch.items)
    items[varying[0]] = replace(item, least=fewest, most=min(limits) if limits else None)
    return _Branch(items, start=True, end=True)


class _Reader:
    """Reads a pattern of ECMA 262, as far as it can be told from one of Python."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def read(self) -> list[_Branch]:
        branches = self._alternatives()
        if self._at < len(self._text):
            raise PatternError("has a ) without its (", invalid=True)
        return branches

    def _alternatives(self) -> list[_Branch]:
        branches, branch = [], _Branch()
        while self._at < len(self._text) and self._text[self._at] != ")":
            if self._text[self._at] == "|":
                self._at += 1
                branches.append(branch)
                branch = _Branch()
            else:
                self._step(branch)
        branches.append(branch)
        return [one for branch in branches for one in _spliced(branch)]

    def _step(self, branch: _Branch) -> None:
        char = self._text[self._at]
        if char in "^$":
            self._at += 1
            # Anchors elsewhere never match, or match what the pattern without them does.
            if (
                (branch.items or branch.end)
                if char == "^"
                else self._text[self._at : self._at + 1] not in ("", "|", ")")
            ):
                raise PatternError(f"has a {char} that is not at the {'start' if char == '^' else 'end'}")
            if char == "^":
                branch.start = True
            else:
                branch.end = True
            return
        if branch.end:
            raise PatternError("has something after its end", invalid=True)
        item = self._atom(char)
        found = _QUANTIFIER.match(self._text, self._at)
        if found:
            if item.group is not None and any(one.start or one.end for one in item.group):
                raise PatternError("repeats an anchor")
            self._at = found.end() + (self._text[found.end() : found.end() + 1] == "?")
            if _QUANTIFIER.match(self._text, self._at):
                raise PatternError("has a repetition of a repetition", invalid=True)
            least, most = _counts(found)
            item = replace(item, least=least, most=most)
        branch.items.append(item)

    def _atom(self, char: str) -> _Item:
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if _QUANTIFIER.match(self._text, self._at):
            raise PatternError("repeats nothing", invalid=True)
        self._at += 1
        if char == ".":
            return _DOT
        if char == "\\":
            chars, explicit = self._escape()
            return _Item(chars, explicit)
        return _Item(explicit=frozenset((ord(char),)))

    def _group(self) -> _Item:
        found = _GROUP.match(self._text, self._at)
        if not found and self._text.startswith("(?", self._at):
            raise PatternError("has a lookahead, lookbehind or flag")
        self._at = found.end() if found else self._at + 1
        branches = self._alternatives()
        if self._at >= len(self._text):
            raise PatternError("has a ( without its )", invalid=True)
        self._at += 1
        return _Item(group=tuple(branches))

    def _class(self) -> _Item:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        explicit: set[int] = set()
        while True:
            if self._at >= len(self._text):
                raise PatternError("has a [ without its ]", invalid=True)
            if self._text[self._at] == "]":
                break
            chars, single = self._member()
            if single and self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                if self._at >= len(self._text):
                    continue
                last_chars, last = self._member()
                if last and max(last) < max(single):
                    raise PatternError("has a range in the wrong order", invalid=True)
                if last:
                    chars, single = ((max(single), max(last)),), frozenset()
                else:
                    chars, single = last_chars, single | {ord("-")}
            ranges += chars
            explicit |= single
        self._at += 1
        if not negated:
            return _Item(tuple(ranges), frozenset(explicit))
        return _Item(_complement([*ranges, *((code, code) for code in explicit)]))

    def _member(self) -> tuple[_Ranges, frozenset[int]]:
        char = self._text[self._at]
        self._at += 1
        if char != "\\":
            return (), frozenset((ord(char),))
        if self._text.startswith("b", self._at):
            self._at += 1
            return (), frozenset((8,))
        return self._escape()

    def _escape(self) -> tuple[_Ranges, frozenset[int]]:
        char = self._text[self._at : self._at + 1]
        if not char:
            raise PatternError("ends in a backslash", invalid=True)
        if char.lower() in _SETS:
            self._at += 1
            ranges = _SETS[char.lower()]
            return (ranges if char.islower() else _complement(ranges)), frozenset()
        found = _CODE.match(self._text, self._at)
        if found:
            code, self._at = _code(found), found.end()
            if found[4] and code <= 0xFFFF:  # Two characters, not a pair.
                self._at -= 6
            if code > _LAST or 0xD800 <= code <= 0xDFFF:
                raise PatternError("has an escape that is not a character", invalid=True)
            return (), frozenset((code,))
        if char in "bBkpP" or char in "123456789":
            raise PatternError(f"has \\{char}, which xgrammar does not know")
        if char.isalnum() and char not in _CONTROLS:
            raise PatternError("has an unknown escape", invalid=True)
        self._at += 1
        return (), frozenset((_CONTROLS.get(char, ord(char)),))


def _spliced(branch: _Branch) -> Iterator[_Branch]:
    """The alternatives of a branch that is one group with anchors; raises PatternError for such a group elsewhere."""
    groups = [item for item in branch.items if item.group is not None]
    if not any(one.start or one.end for item in groups for one in item.group or ()):
        yield branch
        return
    if len(branch.items) > 1 or (branch.items[0].least, branch.items[0].most) != (1, 1):
        raise PatternError("has a ^ or $ that is not at its ends")
    for one in groups[0].group or ():
        yield _Branch(one.items, branch.start or one.start, branch.end or one.end)


def _counts(found: re.Match[str]) -> tuple[int, int | None]:
    sign, low, comma, high = found.groups()
    if sign:
        return int(sign == "+"), 1 if sign == "?" else None
    if high and int(high) < int(low):
        raise PatternError("has a repetition whose bounds are in the wrong order", invalid=True)
    return int(low), int(high) if high else None if comma else int(low)


def _code(found: re.Match[str]) -> int:
    two, braced, four, pair, control = found.groups()
    if control:
        return ord(control) % 32
    code = int(two or braced or four, 16)
    if pair and 0xD800 <= code < 0xDC00 <= int(pair, 16) < 0xE000:
        return 0x10000 + ((code - 0xD800) << 10) + int(pair, 16) - 0xDC00
    return code


def _complement(ranges: _Ranges | list[tuple[int, int]]) -> _Ranges:
    result, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    return (*result, (start, _LAST)) if start <= _LAST else tuple(result)


def _contains(ranges: _Ranges, explicit: frozenset[int], code: int) -> bool:
    return code in explicit or any(low <= code <= high for low, high in ranges)


def _union(branches: "tuple[_Branch, ...] | list[_Branch]") -> str:
    return "|".join(branch.text() for branch in branches)


def _class(ranges: _Ranges, explicit: frozenset[int]) -> str:
    """One of the characters as a regular expression of JSON's text."""
    plain = [
        (max(low, first), min(high, last))
        for low, high in sorted({*ranges, *((code, code) for code in explicit)})
        for first, last in _PLAIN
        if max(low, first) <= min(high, last)
    ]
    escaped = [f"\\\\{_SHORT[code]}" for code in sorted(explicit) if code in _SHORT]
    if len(plain) == 1 and plain[0][0] == plain[0][1]:
        escaped.insert(0, _char(plain[0][0]))
    elif plain:
        if plain[0][0] == _CARET:  # xgrammar takes it for the sign of a negated class, even if it is escaped.
            first = [(_CARET + 1, plain[0][1])] if plain[0][1] > _CARET else []
            plain = [*first, *plain[1:], (_CARET, _CARET)]
        parts = (_char(low) + (f"-{_char(high)}" if high > low else "") for low, high in plain)
        escaped.insert(0, f"[{''.join(parts)}]")
    if not escaped:
        raise PatternError("needs a control character")
    return escaped[0] if len(escaped) == 1 else f"(?:{'|'.join(escaped)})"


def _char(code: int) -> str:
    # xgrammar reads more digits after \\x than two, and \\x2d in a class as the dash of a range.
    return ("\\" if chr(code) in "^$.*+?\\()[]{}|/-" else "") + chr(code)
