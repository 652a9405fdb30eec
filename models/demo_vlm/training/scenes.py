# SPDX-License-Identifier: Apache-2.0
"""Draw the contents of pictures at random from a seed."""

from dataclasses import dataclass, replace
from random import Random

from models.demo_vlm.training import words
from models.demo_vlm.training.palette import COLORS, Rgb, contrasts, shade
from models.demo_vlm.training.shapes import DIRECTIONS, SHAPES, Outline, outline

# (colour, shape) pairs that only the evaluation shows, never the training.
HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("blue", "heart"),
        ("green", "diamond"),
        ("yellow", "circle"),
        ("purple", "square"),
        ("orange", "triangle"),
        ("black", "oval"),
        ("brown", "arrow"),
        ("pink", "rectangle"),
        ("gray", "hexagon"),
    }
)
PAIRS = tuple((color, shape) for color in COLORS for shape in SHAPES)
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT)


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in a picture.

    x, y: centre, in pixels. size: radius of the circle around it, in pixels. outline: its corners, in pixels of the
    picture. direction: where an arrow points. edge: colour of a thin line around the shape, or None.
    """

    shape: str
    color: str
    rgb: Rgb
    x: float
    y: float
    size: float
    outline: tuple[tuple[float, float], ...]
    direction: str | None = None
    edge: Rgb | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A printed word. x, y: left and top of its ink. width, height: of the ink. All in pixels."""

    text: str
    color: str
    rgb: Rgb
    x: float
    y: float
    width: float
    height: float
    font: str
    font_size: int


@dataclass(frozen=True, slots=True)
class Scene:
    """The contents of a picture.

    width, height: in pixels. background: name of its colour. rgb, rgb_end: its colour at the top and at the bottom.
    """

    width: int
    height: int
    background: str
    rgb: Rgb
    rgb_end: Rgb
    noise: float
    blur: float
    things: tuple[Thing, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to put into a scene. things: (colour, shape) of each. background: name of a colour, or None for any."""

    things: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    background: str | None = None


# Aspect ratios (width / height) with their weights; about half of the pictures become one tile.
_ASPECTS = (
    (1.0, 0.5),
    (4 / 3, 0.2),
    (3 / 4, 0.06),
    (3 / 2, 0.06),
    (2 / 3, 0.03),
    (16 / 9, 0.08),
    (2.0, 0.04),
    (0.5, 0.03),
)
_SIDES = ((224, 0.35), (256, 0.2), (300, 0.15), (400, 0.1), (448, 0.08), (512, 0.08), (640, 0.04))


def plan(rng: Random, pairs: tuple[tuple[str, str], ...], simple: bool = False) -> Plan:
    """Draw a plan with things out of `pairs`. simple: one thing or one word."""
    kind = rng.random()
    if simple:
        return Plan(things=(rng.choice(pairs),)) if kind < 0.7 else Plan(words=(words.text(rng),))
    if kind < 0.13:
        return Plan(things=(rng.choice(pairs),))
    if kind < 0.35:
        return Plan(things=_choices(rng, pairs, rng.randint(2, 4)))
    if kind < 0.47:
        return Plan(things=_crowd(rng, pairs))
    if kind < 0.84:
        return Plan(words=tuple(words.text(rng) for _ in range(1 if rng.random() < 0.85 else 2)))
    return Plan(things=_choices(rng, pairs, rng.randint(1, 3)), words=(words.text(rng),))


def _choices(rng: Random, pairs: tuple[tuple[str, str], ...], count: int) -> tuple[tuple[str, str], ...]:
    return tuple(rng.choices(pairs, k=count))


def _crowd(rng: Random, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Draw 3 to 9 things that share shapes or colours, so that it makes sense to count some of them."""
    count = rng.choice((3, 4, 4, 5, 5, 6, 6, 7, 8, 9))
    chosen = {pair[rng.randrange(2)] for pair in rng.choices(pairs, k=rng.randint(1, 3))}
    some = tuple(pair for pair in pairs if chosen & set(pair))
    few = tuple(rng.choices(some, k=rng.randint(1, 3))) if rng.random() < 0.6 else some
    return _choices(rng, few, count)


def scene(rng: Random, wanted: Plan, size: tuple[int, int] | None = None) -> Scene:
    """Give everything in the plan a position, a size and a colour value. Things without enough room are left out."""
    width, height = size or canvas(rng)
    background = wanted.background or _background(rng, wanted)
    rgb = shade(rng, background)
    empty = Scene(
        width=width,
        height=height,
        background=background,
        rgb=rgb,
        rgb_end=_faded(rng, rgb) if rng.random() < 0.2 else rgb,
        noise=rng.uniform(2, 10) if rng.random() < 0.15 else 0.0,
        blur=rng.uniform(0.3, 0.8) if rng.random() < 0.1 else 0.0,
        things=(),
        words=(),
    )
    taken: list[tuple[float, float, float, float]] = []
    printed = [_word(rng, empty, text, len(wanted.words) + len(wanted.things), taken) for text in wanted.words]
    things = [_thing(rng, empty, pair, len(wanted.things), bool(wanted.words), taken) for pair in wanted.things]
    return replace(
        empty,
        things=tuple(thing for thing in things if thing),
        words=tuple(word for word in printed if word),
    )


def canvas(rng: Random) -> tuple[int, int]:
    """Draw the (width, height) of a picture, in pixels."""
    aspect = _weighted(rng, _ASPECTS)
    side = _weighted(rng, _SIDES) * rng.uniform(0.9, 1.1) if rng.random() < 0.5 else _weighted(rng, _SIDES)
    return round(side * aspect**0.5), round(side / aspect**0.5)


def _weighted(rng: Random, table: tuple[tuple[float, float], ...]) -> float:
    return rng.choices([value for value, _ in table], [weight for _, weight in table])[0]


def _background(rng: Random, wanted: Plan) -> str:
    used = {color for color, _ in wanted.things}
    kind = rng.random()
    plain = "white" if kind < 0.5 else "black" if kind < 0.6 else "gray" if kind < 0.66 else rng.choice(list(COLORS))
    free = [color for color in COLORS if color not in used]
    return plain if plain not in used else rng.choice(free or ["white"])


def _faded(rng: Random, rgb: Rgb) -> Rgb:
    factor = rng.uniform(0.8, 0.95)
    return round(rgb[0] * factor), round(rgb[1] * factor), round(rgb[2] * factor)


def _thing(
    rng: Random,
    empty: Scene,
    pair: tuple[str, str],
    count: int,
    beside_words: bool,
    taken: list[tuple[float, float, float, float]],
) -> Thing | None:
    color, shape = pair
    rgb = _visible(rng, color, empty)
    if rgb is None:
        return None
    short = min(empty.width, empty.height)
    largest = {1: 0.42, 2: 0.26, 3: 0.22, 4: 0.2}.get(count, 0.15) * (0.7 if beside_words else 1)
    for _ in range(30):
        size = short * rng.uniform(max(0.065, largest * 0.35), largest)
        if 2 * size + 4 > short:
            continue
        x, y = rng.uniform(size + 1, empty.width - size - 1), rng.uniform(size + 1, empty.height - size - 1)
        if _claim(taken, (x - size, y - size, x + size, y + size), 0.02 * short):
            direction = rng.choice(list(DIRECTIONS)) if shape == "arrow" else None
            return Thing(
                shape,
                color,
                rgb,
                x,
                y,
                size,
                _placed(outline(rng, shape, direction), x, y, size),
                direction,
                _edge(rng),
            )
    return None


def _edge(rng: Random) -> Rgb | None:
    return (0, 0, 0) if rng.random() < 0.1 else None


def _placed(points: Outline, x: float, y: float, size: float) -> tuple[tuple[float, float], ...]:
    return tuple((x + size * px, y + size * py) for px, py in points)


def _word(
    rng: Random, empty: Scene, text: str, count: int, taken: list[tuple[float, float, float, float]]
) -> Word | None:
    colors = ["black"] * 8 + ["white"] * 3 + list(COLORS)
    seen = [(color, _visible(rng, color, empty)) for color in rng.sample(colors, 6)]
    color, rgb = next(((color, rgb) for color, rgb in seen if rgb and color != empty.background), ("", None))
    if rgb is None:
        return None
    files = words.font_files()
    path = files[int(rng.random() ** 1.5 * len(files))]
    side = min(empty.width, empty.height)
    height = side * rng.uniform(0.13, 0.55 if count == 1 else 0.28)
    for _ in range(12):
        # In steps, so that few font sizes are loaded.
        font_size = max(4 * round(height / 4), 12)
        left, top, right, bottom = words.font(path, font_size).getbbox(text)
        width, tall = right - left, bottom - top
        if width < 0.94 * empty.width and tall < 0.94 * empty.height:
            x = rng.uniform(0.02 * empty.width, 0.98 * empty.width - width)
            y = rng.uniform(0.02 * empty.height, 0.98 * empty.height - tall)
            if _claim(taken, (x, y, x + width, y + tall), 0.03 * side):
                return Word(text, color, rgb, x, y, width, tall, path, font_size)
        height = max(height * 0.85, 0.09 * side)
    return None


def _visible(rng: Random, color: str, empty: Scene) -> Rgb | None:
    """Draw a value of the colour that is visible on the background, or None."""
    for _ in range(6):
        rgb = shade(rng, color)
        if contrasts(rgb, empty.rgb) and contrasts(rgb, empty.rgb_end):
            return rgb
    return None


def _claim(taken: list[tuple[float, float, float, float]], box: tuple[float, float, float, float], gap: float) -> bool:
    """Take the box, unless it is closer than `gap` to one that is taken."""
    left, top, right, bottom = box
    for other in taken:
        if left < other[2] + gap and other[0] < right + gap and top < other[3] + gap and other[1] < bottom + gap:
            return False
    taken.append(box)
    return True
