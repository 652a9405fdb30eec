# SPDX-License-Identifier: Apache-2.0
"""Read fenced blocks and tables of the documentation, for the tests that compare them with the code.

A comment directly before a block says how it is tested: `<!-- not run: why -->`, `<!-- prints: words -->` or
`<!-- model: demo-vlm; prints: words -->`. The READMEs have no comments: block_notes.yaml says the same of their blocks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Notes of blocks by page, and by the block's first line without a comment at its end.
NOTES: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
    Path(__file__).with_name("block_notes.yaml").read_text(encoding="utf-8")
)
# Without docs/requests.md, which test_curl.py runs with a vision model.
PAGES = (ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted(set(DOCS.glob("*.md")) - {DOCS / "requests.md"}))
RUNNABLE = ("bash", "python")
FENCE = "```"

_NOTE = re.compile(r"<!-- (?:not run: (?P<not_run>.+)|(?:model: (?P<model>[\w.-]+); )?prints: (?P<prints>.+)) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    place: page and line. not_run: why it cannot be run here. prints: text that its output must contain.
    model: the tests' server that it is for; None is the default server.
    """

    place: str
    language: str
    text: str
    not_run: str | None = None
    prints: str | None = None
    model: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith(FENCE):
            at += 1
            continue
        end = lines.index(FENCE, at + 1)
        note = _NOTE.fullmatch(lines[at - 1]) if at else None
        notes = note.groupdict() if note else NOTES.get(page.name, {}).get(first_line(lines[at + 1]), {})
        text = "\n".join(lines[at + 1 : end]) + "\n"
        yield Block(f"{page.name}:{at + 1}", lines[at].removeprefix(FENCE), text, **notes)
        at = end + 1


def first_line(line: str) -> str:
    """The first line of a block without a comment at its end, which is its name in block_notes.yaml."""
    return line.partition("  #")[0].strip()


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(rf"^{FENCE}.*?^{FENCE}$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def section(name: str, heading: str) -> str:
    """A section of a page of docs/, from its heading to the next of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", prose(DOCS / name), re.DOTALL | re.MULTILINE)
    assert found, f"{name} has no section {heading}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without their heads."""
    tables = re.findall(r"^\|.*\n\|[-:| ]+\|\n((?:\|.*\n?)*)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def codes(text: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", text)
