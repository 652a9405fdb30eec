# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG, written by hand: two axes, a line with dots for each series, a legend."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 170, 36, 52
# Okabe and Ito's palette, which colour-blind people can distinguish.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_STEPS = (1, 2, 2.5, 5, 10)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart. lines: name -> points in the order of x. log_x: a logarithmic x axis, for values that double."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]
    log_x: bool = True


def line_chart(chart: Chart) -> str:
    """Render the chart as an SVG document; the y axis begins at 0, so that heights can be compared."""
    places = _Places(chart)
    body = [
        f'<text x="{WIDTH / 2}" y="20" text-anchor="middle" font-size="14">{escape(chart.title)}</text>',
        *_y_axis(chart, places),
        *_x_axis(chart, places),
    ]
    for index, (name, points) in enumerate(chart.lines.items()):
        body += _line(name, points, index, places)
    font = 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {font}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *body, "</svg>", ""])


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

    def __init__(self, chart: Chart) -> None:
        points = [point for line in chart.lines.values() for point in line]
        self._scale = math.log if chart.log_x and min(x for x, _ in points) > 0 else float
        scaled = [self._scale(x) for x, _ in points]
        self._low, self._high = min(scaled), max(scaled)
        self.ticks = ticks(max(y for _, y in points))

    def x(self, value: float) -> float:
        span = self._high - self._low
        part = (self._scale(value) - self._low) / span if span else 0.5
        return round(_LEFT + part * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - _BOTTOM - value / self.ticks[-1] * (HEIGHT - _TOP - _BOTTOM), 1)


def _y_axis(chart: Chart, places: _Places) -> list[str]:
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 16 {middle})"'
    made = [f'<text x="16" y="{middle}" {turned}>{escape(chart.y_label)}</text>']
    for value in places.ticks:
        y = places.y(value)
        made.append(f'<line x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}" stroke="#ddd"/>')
        made.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    return made


def _x_axis(chart: Chart, places: _Places) -> list[str]:
    values = sorted({x for line in chart.lines.values() for x, _ in line})
    # At most ten, as more would overlap.
    values = values[:: -(-len(values) // 10)]
    bottom, middle = HEIGHT - _BOTTOM, (_LEFT + WIDTH - _RIGHT) / 2
    made = [f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{escape(chart.x_label)}</text>']
    for value in values:
        x = places.x(value)
        made.append(f'<line x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}" stroke="#666"/>')
        made.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>')
    return made


def _line(name: str, points: Sequence[Point], index: int, places: _Places) -> list[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    placed = [(places.x(x), places.y(y)) for x, y in points]
    path = " ".join(f"{x},{y}" for x, y in placed)
    made = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    made += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in placed]
    x, y = WIDTH - _RIGHT + 12, _TOP + 10 + 18 * index
    made.append(f'<rect x="{x}" y="{y - 8}" width="12" height="8" fill="{colour}"/>')
    made.append(f'<text x="{x + 18}" y="{y}">{escape(name)}</text>')
    return made
