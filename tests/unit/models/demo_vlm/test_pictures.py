# SPDX-License-Identifier: Apache-2.0
"""The demo model's pictures match their scenes, and the answers are true."""

import re
from collections import Counter
from random import Random

import numpy as np
import pytest

from models.demo_vlm.layout import MAX_TILES, MIN_TILES, PATCHES_PER_SIDE, TILE
from models.demo_vlm.training import multi_image, questions
from models.demo_vlm.training.painting import paint, patch_labels
from models.demo_vlm.training.palette import COLORS
from models.demo_vlm.training.samples import Sample, cut, draw, draw_unseen
from models.demo_vlm.training.scenes import HELD_OUT, PAIRS, SEEN_PAIRS, Scene, Thing, plan, scene
from models.demo_vlm.training.shapes import SHAPES
from models.demo_vlm.training.words import ALPHABET
from preprocessing.images import tiling


def scenes(number: int) -> list[Scene]:
    rng = Random("test scenes")
    return [scene(rng, plan(rng, SEEN_PAIRS)) for _ in range(number)]


def samples(number: int) -> list[Sample]:
    return [draw(Random(f"test sample {index}"), SEEN_PAIRS, 4) for index in range(number)]


def is_even(item: Scene) -> bool:
    return not item.noise and not item.blur


def test_a_seed_gives_the_same_sample_and_pixels_and_another_seed_does_not() -> None:
    first, again, other = (draw(Random(seed), SEEN_PAIRS, 3) for seed in ("1", "1", "2"))
    assert first == again
    assert first != other
    assert all(np.array_equal(one, two) for one, two in zip(cut(first)[:2], cut(again)[:2], strict=True))


def test_training_neither_shows_nor_names_a_pair_that_is_held_out() -> None:
    held_out = {f"{color} {shape}" for color, shape in HELD_OUT}
    for sample in samples(400):
        assert not HELD_OUT & {(thing.color, thing.shape) for item in sample.scenes for thing in item.things}
        text = " ".join(f"{item.text} {item.answer}" for item in sample.asked).lower().replace("grey", "gray")
        assert not [pair for pair in held_out if re.search(rf"\b{pair}s?(es)?\b", text)]


def test_the_unseen_part_of_the_evaluation_shows_nothing_else() -> None:
    for index in range(50):
        (item,) = draw_unseen(Random(index), 2).scenes
        assert {(thing.color, thing.shape) for thing in item.things} <= HELD_OUT


def test_every_color_shape_and_skill_occurs() -> None:
    drawn = samples(400)
    things = [thing for sample in drawn for item in sample.scenes for thing in item.things]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.color for thing in things} == set(COLORS)
    skills = Counter(item.skill for sample in drawn for item in sample.asked)
    expected = {"color", "shape", "count", "position", "relation", "exists", "read", "size", "direction", "describe"}
    assert set(skills) == expected | {multi_image.SKILL}


def test_things_are_inside_the_picture_and_do_not_overlap() -> None:
    for item in scenes(300):
        for index, thing in enumerate(item.things):
            assert thing.size < thing.x < item.width - thing.size
            assert thing.size < thing.y < item.height - thing.size
            for other in item.things[:index]:
                assert max(abs(thing.x - other.x), abs(thing.y - other.y)) > thing.size + other.size


def test_the_picture_has_the_colors_of_its_things_and_background() -> None:
    for item in filter(is_even, scenes(200)):
        image = paint(item, 0)
        assert image.size == (item.width, item.height)
        for thing in item.things:
            assert image.getpixel((round(thing.x), round(thing.y))) == thing.rgb
        colors = {color for _, color in image.getcolors(1 << 20) or []}
        assert item.rgb in colors
        for word in item.words:
            assert word.rgb in colors


def test_the_ink_of_a_word_is_at_its_position() -> None:
    for item in filter(is_even, scenes(200)):
        if len(item.words) != 1 or item.things or item.rgb != item.rgb_end:
            continue
        word = item.words[0]
        pixels = np.asarray(paint(item, 0)).astype(int)
        rows, columns = np.nonzero(np.abs(pixels - item.rgb).sum(2))
        # A font's bounding box may include some space around the letters.
        near = 0.15 * word.font_size
        assert abs(columns.min() - word.x) < near and abs(columns.max() - word.x - word.width) < near
        assert abs(rows.min() - word.y) < near and abs(rows.max() - word.y - word.height) < near


def test_patch_labels_match_the_things_in_each_tile() -> None:
    for item in scenes(200):
        columns, rows = tiling.grid(item.width, item.height, MIN_TILES, MAX_TILES, TILE)
        labels = patch_labels(item, columns, rows, True, PATCHES_PER_SIDE)
        assert labels.shape == (tiling.tile_count(columns, rows, True), 3, PATCHES_PER_SIDE, PATCHES_PER_SIDE)
        small = labels[-1]
        for thing in item.things:
            if thing.size < 0.12 * max(item.width, item.height):
                continue  # Narrow parts of small things fall between the middles of the patches.
            row = int(thing.y / item.height * PATCHES_PER_SIDE)
            column = int(thing.x / item.width * PATCHES_PER_SIDE)
            near = small[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert 1 + SHAPES.index(thing.shape) in near[0]
            assert list(COLORS).index(thing.color) in near[1]
        characters = {ALPHABET[value - 1] for value in labels[:, 2].ravel() if value}
        assert characters <= {character for word in item.words for character in word.text}


def test_labels_match_the_pixels_of_the_tiles() -> None:
    rng = Random(4)
    for _ in range(40):
        item = scene(rng, plan(rng, SEEN_PAIRS))
        if not is_even(item) or not item.things or item.words:
            continue
        columns, rows = tiling.grid(item.width, item.height, MIN_TILES, MAX_TILES, TILE)
        tiles = tiling.tiles(paint(item, 0), columns, rows, TILE, True)
        labels = patch_labels(item, columns, rows, True, PATCHES_PER_SIDE)
        middles = tiles[:, 7::14, 7::14].astype(int)
        labelled = np.where(labels[:, 0] > 0)
        rgb = {list(COLORS).index(thing.color): thing.rgb for thing in item.things}
        same = {name: sum(thing.color == name for thing in item.things) for name in COLORS}
        for tile, row, column in zip(*labelled, strict=True):
            color = labels[tile, 1, row, column]
            if same[list(COLORS)[color]] == 1:
                background = np.abs(middles[tile, row, column] - item.rgb).sum()
                assert (
                    background > 40
                    or np.abs(np.array(rgb[color]) - item.rgb).sum() < 60
                    or _edge_patch(labels, tile, row, column)
                )


def _edge_patch(labels: np.ndarray, tile: int, row: int, column: int) -> bool:
    around = labels[tile, 0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    return around.size < 9 or bool((around == 0).any())


# The answers, checked by other code than the code that made them.

_NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def _pick(things: tuple[Thing, ...], called: str) -> list[Thing]:
    words = called.split()
    return [
        thing
        for thing in things
        if all(word in (thing.color, thing.shape, "shape", "object", "thing") for word in words)
    ]


def _plain(text: str) -> str:
    return text.lower().replace("grey", "gray").replace("colour", "color").replace("centre", "center").rstrip("?.")


def _full_answers(skill: str) -> list[tuple[Scene, str, str]]:
    found = []
    for index in range(600):
        rng = Random(f"test answers {index}")
        item = scene(rng, plan(rng, PAIRS))
        for asked in questions.ask(rng, item, 5):
            if asked.skill == skill and asked.answer.endswith("."):
                found.append((item, _plain(asked.text), asked.answer[:-1]))
    assert len(found) > 10
    return found


def test_counts() -> None:
    for item, _, answer in _full_answers("count"):
        found = re.fullmatch(r"There (is|are) (\w+) (.+)", answer)
        assert found
        verb, number, noun = found.groups()
        singular = {"crosses": "cross"}.get(noun.split()[-1], noun.split()[-1].removesuffix("s"))
        singular = "cross" if noun.endswith("cross") else singular
        count = len(_pick(item.things, " ".join([*noun.split()[:-1], singular])))
        assert _NUMBERS.index(number) == count
        assert (verb == "is") == (count == 1)


def test_colors_and_shapes() -> None:
    for skill in ("color", "shape"):
        for item, _, answer in _full_answers(skill):
            subject, _, value = answer.partition(" is ")
            value = value.removeprefix("a ").removeprefix("an ")
            if subject == "The background":
                assert value == item.background
            elif subject == "The text":
                assert value == item.words[0].color
            else:
                called = subject.removeprefix("The ")
                (thing,) = item.things if called == "It" else _pick(item.things, called)
                assert value == (thing.color if skill == "color" else thing.shape)


def test_relations() -> None:
    for item, text, answer in _full_answers("relation"):
        yes_or_no, _, sentence = answer.partition(", ") if answer.startswith(("Yes", "No")) else ("", "", answer)
        found = re.fullmatch(
            r"(?:the|a|an) (.+) is (to the left of|to the right of|above|below) the (.+)", sentence.lower()
        )
        assert found
        called, where, other = found.groups()
        (first,), (second,) = _pick(item.things, called), _pick(item.things, other)
        across, down = first.x - second.x, first.y - second.y
        true = {"to the left of": -across, "to the right of": across, "above": -down, "below": down}
        assert true[where] > 0.1 * min(item.width, item.height)
        if yes_or_no:
            asked = re.search(r"(left|right) of|above|below", text)
            assert asked
            word = asked.group(1) or asked.group(0)
            assert (yes_or_no == "Yes") == (word in where)


def test_positions() -> None:
    for item, _, answer in _full_answers("position"):
        found = re.fullmatch(r"(?:The|A|An) (.+) is (?:in|at|on) the (.+?)(?: corner| side)?", answer)
        assert found
        called, where = found.groups()
        if called == "text":
            word = item.words[0]
            x, y = word.x + word.width / 2, word.y + word.height / 2
        else:
            (thing,) = _pick(item.things, called)
            x, y = thing.x, thing.y
        column, row = x / item.width, y / item.height
        assert (column < 0.4) == ("left" in where) and (column > 0.6) == ("right" in where)
        assert (row < 0.4) == ("top" in where) and (row > 0.6) == ("bottom" in where)


def test_yes_and_no() -> None:
    answers = _full_answers("exists")
    for item, _, answer in answers:
        found = re.fullmatch(r"(Yes, there is an?|No, there is no) (.+)", answer)
        assert found
        assert found.group(1).startswith("Yes") == bool(_pick(item.things, found.group(2)))
    yes = sum(answer.startswith("Yes") for _, _, answer in answers)
    assert 0.25 < yes / len(answers) < 0.6


def test_texts_sizes_and_directions() -> None:
    for item, text, answer in _full_answers("read"):
        quoted = re.search(r'"(.+)"|number is (\w+)', answer)
        words = {word.text for word in item.words if word.color in text or len(item.words) == 1}
        assert ({quoted.group(1) or quoted.group(2)} if quoted else set()) == words
    for item, _, answer in _full_answers("size"):
        found = re.fullmatch(r"The (\w+) shape is the (.+)", answer)
        assert found
        sizes = [thing.size for thing in item.things]
        extreme = min(sizes) if found.group(1) == "smallest" else max(sizes)
        assert extreme in [thing.size for thing in _pick(item.things, found.group(2))]
    for item, _, answer in _full_answers("direction"):
        (arrow,) = (thing for thing in item.things if thing.shape == "arrow")
        tip = max(arrow.outline, key=lambda point: _tip(answer.split()[-1], point))
        assert np.hypot(tip[0] - arrow.x, tip[1] - arrow.y) == pytest.approx(arrow.size, rel=0.02)


def _tip(direction: str, point: tuple[float, float]) -> float:
    return {"left": -point[0], "right": point[0], "up": -point[1], "down": point[1]}[direction]


def test_answers_about_multiple_pictures() -> None:
    ordinals = ["first", "second", "third"]
    seen = 0
    for index in range(300):
        rng = Random(f"several {index}")
        pictures = multi_image.scenes(rng, SEEN_PAIRS)
        for asked in multi_image.ask(rng, pictures, 4, SEEN_PAIRS):
            found = re.fullmatch(r"The (\w+) image has an? (.+)\.", asked.answer)
            if found:
                has = [bool(_pick(item.things, found.group(2))) for item in pictures]
                assert has == [name == found.group(1) for name in ordinals[: len(pictures)]]
                seen += 1
            found = re.fullmatch(r'The text in the (\w+) image says "(\w+)"\.', asked.answer)
            if found:
                assert [word.text for word in pictures[ordinals.index(found.group(1))].words] == [found.group(2)]
                seen += 1
    assert seen > 50
