# SPDX-License-Identifier: Apache-2.0
import gc
import random
import weakref
from typing import Any

import pytest

from common.markers import MANY_CHARS, Automaton
from postprocessing.stop_strings import StopMatcher


def run(stops: list[str], pieces: list[str], *, include_stop: bool = False) -> tuple[list[str], str | None]:
    matcher = StopMatcher(stops, include_stop=include_stop)
    sent = [matcher.feed(piece) for piece in pieces]
    return [*sent, matcher.flush()], matcher.matched


def test_without_stops_text_passes() -> None:
    assert run([], ["a", "b"]) == (["a", "b", ""], None)
    assert run([""], ["a"]) == (["a", ""], None)


def test_cut_inside_pieces() -> None:
    assert run(["STOP"], ["one ST", "OP two", "three"]) == (["one ", "", "", ""], "STOP")
    assert run(["STOP"], ["one ST", "OP two"], include_stop=True) == (["one ", "STOP", ""], "STOP")


def test_holds_back_a_true_prefix_only() -> None:
    assert run(["\n\n"], ["a\n", "b\n", "\n"]) == (["a", "\nb", "", ""], "\n\n")
    assert run(["abcd"], ["xab", "ab", "c"]) == (["x", "ab", "", "abc"], None)


def test_a_failed_prefix_may_hold_the_beginning_of_a_match() -> None:
    assert run(["aab"], ["aa", "a", "b!"]) == (["", "a", "", ""], "aab")
    assert run(["ababc"], list("ababababc"))[1] == "ababc"


def test_the_stop_that_is_complete_first_wins() -> None:
    assert run(["later", "first"], ["x first later"]) == (["x ", ""], "first")
    assert run(["abcd", "bc"], ["abcd"]) == (["a", ""], "bc")
    assert run(["bc", "abc"], ["abc"]) == (["", ""], "abc")
    assert run(["ab", "a"], ["ab"]) == (["", ""], "a")


def test_characters_of_any_width() -> None:
    assert run(["结束"], ["正文结", "束了"]) == (["正文", "", ""], "结束")
    assert run(["\U0001f600\0"], ["a\U0001f600", "\0b"]) == (["a", "", ""], "\U0001f600\0")


@pytest.mark.parametrize("include_stop", [False, True])
def test_any_cut_of_random_text_agrees_with_a_plain_search(include_stop: bool) -> None:
    rng = random.Random(7)
    for _ in range(2000):
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 4))]
        text = "".join(rng.choices("abc", k=rng.randint(0, 16)))
        ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
        expected = text
        if ends:
            end, _, stop = min(ends)
            expected = text[:end] if include_stop else text[: end - len(stop)]
        pieces, rest = [], text
        while rest:
            size = rng.randint(1, 5)
            pieces.append(rest[:size])
            rest = rest[size:]
        sent, matched = run(stops, pieces, include_stop=include_stop)
        assert ("".join(sent), matched) == (expected, min(ends)[2] if ends else None)


def test_work_is_linear_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    step = Automaton._step

    def counted(self: Automaton, state: int, char: str) -> int:
        nonlocal steps
        steps += 1
        return step(self, state, char)

    monkeypatch.setattr(Automaton, "_step", counted)
    matcher = StopMatcher(["a" * 50 + "b"])
    text = "a" * 50_000
    assert "".join([matcher.feed(char) for char in text] + [matcher.flush()]) == text
    assert steps <= 2 * len(text)


def test_long_stop_strings_of_earlier_answers_do_not_pile_up() -> None:
    """What they are searched with takes megabytes, and is shared by the choices of a request."""

    def automaton(number: int) -> Any:
        return StopMatcher([f"{number}" + "x" * MANY_CHARS])._scanner._automaton  # type: ignore[union-attr]

    assert automaton(0) is automaton(0)
    made = [weakref.ref(automaton(number)) for number in range(20)]
    gc.collect()
    assert sum(one() is not None for one in made) <= 8
