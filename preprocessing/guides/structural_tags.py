# SPDX-License-Identifier: Apache-2.0
"""Builders of xgrammar's structural tags, the JSON form of a composed grammar in vLLM and TensorRT-LLM.

All formats are those of xgrammar 0.1.25, the first with structural tags, but one: the `style` of arguments that are not
JSON, which newer versions have. Engines without it get forced calls as JSON (`EngineTraits.call_styles`).
"""

from collections.abc import Sequence
from typing import Any

Format = dict[str, Any]

ANY_TEXT: Format = {"type": "any_text"}


def const(text: str) -> Format:
    """Exactly this text."""
    return {"type": "const_string", "value": text}


def json_schema(schema: dict[str, Any], style: str = "json") -> Format:
    """A value that follows the schema, in JSON or another notation of xgrammar's for objects."""
    written: Format = {"type": "json_schema", "json_schema": schema}
    # Older engines know no styles.
    return written if style == "json" else {**written, "style": style}


def regex(pattern: str) -> Format:
    """Text that the whole pattern matches."""
    return {"type": "regex", "pattern": pattern}


def grammar(ebnf: str) -> Format:
    """Text of an EBNF grammar."""
    return {"type": "grammar", "grammar": ebnf}


def sequence(*elements: Format) -> Format:
    """The elements in order."""
    return {"type": "sequence", "elements": list(elements)}


def either(*elements: Format) -> Format:
    """One of the elements."""
    return {"type": "or", "elements": list(elements)}


def optional(content: Format) -> Format:
    """The content or nothing."""
    return either(content, const(""))


def tag(begin: str, content: Format, end: str) -> Format:
    """`begin`, content, `end`; content of ANY_TEXT ends at the first `end`."""
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def tag_list(tags: Sequence[Format], separator: str, *, only_one: bool = False) -> Format:
    """One or more tags, separated by `separator` only."""
    return {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": only_one,
    }


def triggered_tags(triggers: Sequence[str], tags: Sequence[Format], *, only_one: bool = False) -> Format:
    """Free text in which each trigger must continue as one of the tags that begin with it."""
    return {
        "type": "triggered_tags",
        "triggers": list(triggers),
        "tags": list(tags),
        "at_least_one": False,
        "stop_after_first": only_one,
    }


def reasoning_block(tags: tuple[str, str], after: str, *, starts_open: bool) -> Format:
    """Reasoning before an answer, and the text `after` it; of mere line ends the model may write fewer.

    starts_open: the prompt ends inside the block, so that only its end is missing; otherwise the block is optional.
    """
    opening, closing = tags
    parts = [tag("" if starts_open else opening, ANY_TEXT, closing)]
    if after:
        parts.append(const(after) if after.strip("\n") else line_ends(len(after)))
    if starts_open:
        return sequence(*parts)
    return optional(sequence(line_ends(1), *parts))


def line_ends(most: int) -> Format:
    """At most so many line ends."""
    return regex(f"\\n{{0,{most}}}")
