# SPDX-License-Identifier: Apache-2.0
"""Draw docs/images/throughput.svg from the tables of docs/benchmarks.md: `python -m scripts.bench.docs_plot`."""

import re
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.plots import Chart, Point, chart_grid

DOCS = Path(__file__).parents[2] / "docs"
PLOT = DOCS / "images" / "throughput.svg"
LINES = ("this stack", "1 API server", "4 API servers", "front end in Rust")
TITLE = "Throughput beside vllm serve"
# The best peer is bold; a cell with a known fault ends with one asterisk.
_FIGURE = re.compile(r"(?:\*\*)?(?P<digits>\d[\d,]*)(?:\*\*|(?P<marked>\*))?")


@dataclass(frozen=True, slots=True)
class Table:
    """The first table below a heading of the page. cells: the lines whose figures its cells have, in order."""

    heading: str
    cells: tuple[str, ...]


_WITHOUT_SINGLE = ("this stack", "4 API servers", "front end in Rust")
TABLES = (
    Table("SmolLM2's shape on one H200", _WITHOUT_SINGLE),
    Table("Qwen3-8B's shape on one H200", _WITHOUT_SINGLE),
    Table("SmolLM2's shape on one H100", LINES),
    Table("Qwen3-8B's shape on one H100", LINES[:3]),
)


def throughput_plot(page: str) -> str:
    """Render the plot of a page's tables as SVG. Cells marked * are drawn hollow."""
    return chart_grid(TITLE, [_chart(page, table) for table in TABLES])


def _chart(page: str, table: Table) -> Chart:
    lines: dict[str, list[Point]] = {name: [] for name in LINES}
    doubtful: dict[str, list[Point]] = {name: [] for name in LINES}
    for streams, cell in _throughput(page, table.heading):
        for name, figure in zip(table.cells, cell.split("/"), strict=True):
            if found := _FIGURE.search(figure):
                point = (streams, float(found["digits"].replace(",", "")))
                lines[name].append(point)
                if found["marked"]:
                    doubtful[name].append(point)
    return Chart(table.heading, "streams", "tokens/s", lines, doubtful=doubtful)


def _throughput(page: str, heading: str) -> list[tuple[float, str]]:
    """Number of streams and throughput of each row of the first table below a heading."""
    section = page.partition(f"\n### {heading}\n")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*$", section, re.M)]
    head, _, *body = rows
    column = head.index("tokens/s")
    found: list[tuple[float, str]] = []
    for row in body:
        if len(row) != len(head) or not row[0].isdigit():
            break
        found.append((float(row[0]), row[column]))
    return found


def main() -> None:
    """Write the plot."""
    PLOT.write_text(throughput_plot((DOCS / "benchmarks.md").read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
