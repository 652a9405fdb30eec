# SPDX-License-Identifier: Apache-2.0
"""Parts of xgrammar's structural tags, the JSON in which vLLM and TensorRT-LLM take a grammar made of pieces.

Only formats of xgrammar 0.1.25 are used, which introduced them, so that older engines understand them as well.
"""

from collections.abc import Sequence
from typing import Any

Format = dict[str, Any]

ANY_TEXT: Format = {"type": "any_text"}


def const(text: str) -> Format:
    return {"type": "const_string", "value": text}


def json_schema(schema: dict[str, Any]) -> Format:
    return {"type": "json_schema", "json_schema": schema}


def regex(pattern: str) -> Format:
    return {"type": "regex", "pattern": pattern}


def grammar(ebnf: str) -> Format:
    return {"type": "grammar", "grammar": ebnf}


def sequence(*elements: Format) -> Format:
    return {"type": "sequence", "elements": list(elements)}


def either(*elements: Format) -> Format:
    return {"type": "or", "elements": list(elements)}


def optional(content: Format) -> Format:
    return either(content, const(""))


def tag(begin: str, content: Format, end: str) -> Format:
    """`begin` content `end`; content of ANY_TEXT runs to the first `end`."""
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def tag_list(tags: Sequence[Format], separator: str, *, only_one: bool = False) -> Format:
    """One or more tags with `separator` between them and nothing else."""
    return {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": only_one,
    }


def triggered_tags(triggers: Sequence[str], tags: Sequence[Format], *, only_one: bool = False) -> Format:
    """Free text in which a trigger must go on as one of the tags that begin with it."""
    return {
        "type": "triggered_tags",
        "triggers": list(triggers),
        "tags": list(tags),
        "at_least_one": False,
        "stop_after_first": only_one,
    }


def reasoning_block(tags: tuple[str, str], *, starts_open: bool) -> Format:
    """Reasoning before an answer, and the blank line that families write after it.

    starts_open: the prompt ends inside the block, so only its end is to come; else the block may be left out.
    """
    opening, closing = tags
    if starts_open:
        return sequence(tag("", ANY_TEXT, closing), const("\n\n"))
    return optional(sequence(tag(opening, ANY_TEXT, closing), const("\n\n")))
