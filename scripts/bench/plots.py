# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG, written by hand: two axes, a line with dots for each series, a legend. Light and dark."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's palette, which colour-blind people can distinguish; the blue is lighter on dark paper, and their black
# is the colour of the text.
_COLOURS = ("var(--blue)", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "var(--ink)", "#999999")
_STEPS = (1, 2, 2.5, 5, 10)
_STYLE = """<style>
svg { --paper: #ffffff; --ink: #17272b; --grid: #dddddd; --blue: #0072b2 }
@media (prefers-color-scheme: dark) { svg { --paper: #1b2326; --ink: #e8eef0; --grid: #435056; --blue: #4aa8e8 } }
text { fill: var(--ink); font-family: system-ui, sans-serif; font-size: 12px }
.title { font-size: 14px }
</style>"""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart.

    lines: name -> points in the order of x. log_x: a logarithmic x axis, for values that double. doubtful: points of
    the lines with a known fault, drawn hollow and not connected.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]
    log_x: bool = True
    doubtful: Mapping[str, Sequence[Point]] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """Width and height of a chart, and the margins around its axes, in pixels."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    @property
    def middle(self) -> float:
        """The middle of the x axis."""
        return (self.left + self.width - self.right) / 2


_SINGLE = Frame(width=640, height=400, left=78, right=190, top=36, bottom=52)
_CELL = Frame(width=410, height=290, left=78, right=14, top=36, bottom=52)
_LEGEND_HEIGHT = 34


def line_chart(chart: Chart) -> str:
    """Render the chart as an SVG document; the y axis begins at 0, so that heights can be compared."""
    frame = _SINGLE
    left = frame.width - frame.right + 12
    legend = _legend(chart.lines, [(left, frame.top + 10 + 18 * index) for index in range(len(chart.lines))])
    return _document(chart.title, [chart], frame.width, frame.height, [*_drawn(chart, frame), *legend])


def chart_grid(title: str, charts: Sequence[Chart]) -> str:
    """Render charts of the same lines in two columns as one SVG document, with one legend above them."""
    width, height = 2 * _CELL.width, _LEGEND_HEIGHT + -(-len(charts) // 2) * _CELL.height
    body = _legend(charts[0].lines, [(24 + 200 * index, 24) for index in range(len(charts[0].lines))])
    for index, chart in enumerate(charts):
        x, y = index % 2 * _CELL.width, _LEGEND_HEIGHT + index // 2 * _CELL.height
        body += [f'<g transform="translate({x} {y})">', *_drawn(chart, _CELL), "</g>"]
    return _document(title, charts, width, height, body)


def _document(title: str, charts: Sequence[Chart], width: int, height: int, body: Sequence[str]) -> str:
    about = "; ".join(f"{chart.title}: {chart.y_label} against {chart.x_label}" for chart in charts)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(about)}. Lines: {escape(', '.join(charts[0].lines))}</desc>",
        _STYLE,
        f'<rect width="{width}" height="{height}" fill="var(--paper)"/>',
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def _drawn(chart: Chart, frame: Frame) -> list[str]:
    places = _Places(chart, frame)
    made = [
        f'<text x="{frame.middle}" y="20" text-anchor="middle" class="title">{escape(chart.title)}</text>',
        *_y_axis(chart, places),
        *_x_axis(chart, places),
    ]
    # The first line is drawn last, above the others.
    for index, (name, points) in reversed(list(enumerate(chart.lines.items()))):
        hollow = (chart.doubtful or {}).get(name, ())
        made += _line(points, hollow, _COLOURS[index % len(_COLOURS)], places)
    return made


def ticks(largest: float) -> list[float]:
    """Four to eight round values from 0 to at least `largest`."""
    if largest <= 0 or not math.isfinite(largest):
        return [0.0, 1.0]
    rough = largest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
    return [index * step for index in range(math.ceil(largest / step - 1e-9) + 1)]


class _Places:
    """Maps values to pixels."""

    def __init__(self, chart: Chart, frame: Frame) -> None:
        points = [point for line in chart.lines.values() for point in line]
        self.frame = frame
        self._scale = math.log if chart.log_x and min(x for x, _ in points) > 0 else float
        scaled = [self._scale(x) for x, _ in points]
        self._low, self._high = min(scaled), max(scaled)
        self.ticks = ticks(max(y for _, y in points))

    def x(self, value: float) -> float:
        span = self._high - self._low
        part = (self._scale(value) - self._low) / span if span else 0.5
        frame = self.frame
        return round(frame.left + part * (frame.width - frame.left - frame.right), 1)

    def y(self, value: float) -> float:
        frame = self.frame
        part = value / self.ticks[-1]
        return round(frame.height - frame.bottom - part * (frame.height - frame.top - frame.bottom), 1)


def _y_axis(chart: Chart, places: _Places) -> list[str]:
    frame = places.frame
    middle = (frame.top + frame.height - frame.bottom) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 16 {middle})"'
    made = [f'<text x="16" y="{middle}" {turned}>{escape(chart.y_label)}</text>']
    for value in places.ticks:
        y, right = places.y(value), frame.width - frame.right
        made.append(f'<line x1="{frame.left}" y1="{y}" x2="{right}" y2="{y}" stroke="var(--grid)"/>')
        number = f"{value:,.0f}" if value >= 1000 else f"{value:g}"
        made.append(f'<text x="{frame.left - 6}" y="{y + 4}" text-anchor="end">{number}</text>')
    return made


def _x_axis(chart: Chart, places: _Places) -> list[str]:
    values = sorted({x for line in chart.lines.values() for x, _ in line})
    # At most ten, as more would overlap.
    values = values[:: -(-len(values) // 10)]
    frame = places.frame
    bottom = frame.height - frame.bottom
    made = [f'<text x="{frame.middle}" y="{frame.height - 14}" text-anchor="middle">{escape(chart.x_label)}</text>']
    for value in values:
        x = places.x(value)
        made.append(f'<line x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}" stroke="var(--ink)"/>')
        made.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>')
    return made


def _line(points: Sequence[Point], hollow: Sequence[Point], colour: str, places: _Places) -> list[str]:
    made = []
    for run in _runs(points, hollow):
        path = " ".join(f"{places.x(x)},{places.y(y)}" for x, y in run)
        made.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for x, y in points:
        fill = "var(--paper)" if (x, y) in hollow else colour
        made.append(f'<circle cx="{places.x(x)}" cy="{places.y(y)}" r="3" fill="{fill}" stroke="{colour}"/>')
    return made


def _runs(points: Sequence[Point], hollow: Sequence[Point]) -> list[list[Point]]:
    """The parts of a line between its hollow points: a line across one would show a value that was not measured."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point in hollow:
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if len(run) > 1]


def _legend(names: Iterable[str], corners: Iterable[tuple[float, float]]) -> list[str]:
    made = []
    for index, (name, (x, y)) in enumerate(zip(names, corners, strict=True)):
        made.append(f'<rect x="{x}" y="{y - 9}" width="12" height="8" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        made.append(f'<text x="{x + 18}" y="{y}">{escape(name)}</text>')
    return made
