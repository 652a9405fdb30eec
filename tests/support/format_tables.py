# SPDX-License-Identifier: Apache-2.0
"""The tables of families and formats in docs/models.md, made from the code's tables.

`python -m tests.support.format_tables` prints them.
"""

from collections.abc import Iterable, Mapping, Sequence

from families.formats import RULES
from families.parsers import GENERIC, REASONING_FORMATS, TOOL_FORMATS
from families.parsers.formats import REASONING_PARSER_NAMES, TOOL_PARSER_NAMES, ToolFormat
from families.parsers.gemma import GemmaCalls
from families.parsers.held_calls import HeldCalls, WholeAnswer
from families.parsers.named_calls import NamedCalls
from tests.support.expected_formats import EXPECTED


def families() -> str:
    """The families of the rules, with the published templates that were read."""
    rows = []
    for family in dict.fromkeys(rule.family for rule in RULES if rule.family):
        read: dict[tuple[str | None, str | None], list[str]] = {}
        for template, (name, reasoning, tools) in EXPECTED.items():
            if name == family:
                read.setdefault((reasoning, tools), []).append(template)
        for (reasoning, tools), templates in read.items():
            calls = {None: "not read", "generic": "the generic form"}.get(tools, f"`{tools}`")
            rows.append([f"`{family}`", _code(reasoning), calls, ", ".join(templates)])
        if not read:
            reasoning, tools = (
                next((value for rule in RULES if rule.family == family and (value := getattr(rule, field))), None)
                for field in ("reasoning", "tools")
            )
            rows.append([f"`{family}`", _code(reasoning), _code(tools), ""])
    return _table(("family", "reasoning", "tool calls", "published templates read"), rows)


def tool_formats() -> str:
    """The formats of tool calls."""
    return _table(
        ("format", "other names", "begins with", "arguments are sent", "forced calls"),
        (
            [
                f"`{name}`",
                _names(name, TOOL_PARSER_NAMES),
                _beginning(found),
                _sent(found),
                "in this form" if found.form or name == GENERIC else "in the generic form",
            ]
            for name, found in TOOL_FORMATS.items()
        ),
    )


def reasoning_formats() -> str:
    """The formats of reasoning."""
    return _table(
        ("format", "other names", "opens", "closes"),
        (
            [f"`{name}`", _names(name, REASONING_PARSER_NAMES), _code(found.open), _code(found.close)]
            for name, found in REASONING_FORMATS.items()
        ),
    )


TABLES = (families, tool_formats, reasoning_formats)


def _beginning(found: ToolFormat) -> str:
    if found.markup is None:
        return _code(found.form.trigger if found.form else None)
    return ", ".join(map(_code, found.markup.triggers)) or "nothing of its own"


def _sent(found: ToolFormat) -> str:
    if isinstance(found.markup, HeldCalls | WholeAnswer | GemmaCalls):
        return "when the call is whole"
    if isinstance(found.markup, NamedCalls) and found.markup.parameters:
        return "text as it arrives, other values when whole"
    return "as they arrive"


def _names(name: str, others: Mapping[str, str]) -> str:
    return ", ".join(f"`{other}`" for other, ours in others.items() if ours == name)


def _code(text: str | None) -> str:
    return "" if text is None else "`" + text.replace("|", "\\|").replace("\n", "\\n") + "`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|\n" for line in lines).replace(
        "| --- ", "|---"
    )


if __name__ == "__main__":
    print("\n".join(table() for table in TABLES))
