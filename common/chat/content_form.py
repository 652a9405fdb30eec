# SPDX-License-Identifier: Apache-2.0
"""Content of messages as a chat template takes it: as text, or as a list of parts.

Stylers see every message's content as text, with a mark for each picture and video. Marks consist of ASCII letters and
digits, which no template escapes, and are secret, so that no client can write one.
"""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from common.chat.parts import Content, Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
_SECRET = secrets.token_hex(8)
MARKS: dict[Kind, str] = {kind: f"{_SECRET}m{number}" for number, kind in enumerate(KINDS)}
# Between two texts of a message that has marks.
_BORDER = f"{_SECRET}b0"
_KINDS = {mark: kind for kind, mark in MARKS.items()}
_CUTS = re.compile(f"({'|'.join([*_KINDS, _BORDER])})")

# A text that no template has, and what a template writes that does not know parts.
_PROBE = "probe_text"
_PART_TYPE = re.compile("""["']type["']""")

# Renders messages, or returns None if the template refuses them.
Render = Callable[[list[dict[str, Any]]], str | None]


@dataclass(frozen=True, slots=True)
class ContentForm:
    """The form that a template takes.

    texts: whether content may be a text. kinds: the kinds of media that it writes as parts; None if it knows no parts.
    """

    texts: bool = True
    kinds: frozenset[Kind] | None = None


def marked_text(content: Content) -> str:
    """A message's content as one text with marks."""
    pieces: list[str] = []
    after_text = False
    for part in content:
        if isinstance(part, str):
            pieces += [_BORDER, part] if after_text else [part]
        else:
            pieces.append(MARKS[part.kind])
        after_text = isinstance(part, str)
    return "".join(pieces)


def fill_marks(prompt: str, text: Callable[[Kind, int], str]) -> str:
    """A rendered prompt with the text of each mark that the template left in it.

    text: of a kind's picture of a number, counted from 1.
    """
    if _SECRET not in prompt:
        return prompt
    numbers = dict.fromkeys(KINDS, 0)

    def write(found: re.Match[str]) -> str:
        kind = _KINDS.get(found[0])
        if kind is None:
            return "\n"
        numbers[kind] += 1
        return text(kind, numbers[kind])

    return _CUTS.sub(write, prompt)


def find_form(render: Render) -> ContentForm:
    """The form of a template, found by rendering small chats."""
    texts = _has_probe(render([_user(_PROBE)]))
    text = {"type": "text", "text": _PROBE}
    plain = render([_user([text])])
    if plain is None or not _has_probe(plain) or _PART_TYPE.search(plain):
        return ContentForm()
    kinds = (kind for kind in KINDS if _writes(render([_user([{"type": kind}, text])]), plain))
    return ContentForm(texts, frozenset(kinds))


def fit_content(messages: Sequence[Mapping[str, Any]], form: ContentForm) -> list[Mapping[str, Any]]:
    """The messages with content in the form that a template takes; none is changed in place."""
    return [_fit(message, form) for message in messages]


def _fit(message: Mapping[str, Any], form: ContentForm) -> Mapping[str, Any]:
    content = message.get("content")
    if not isinstance(content, str) or (form.texts and _SECRET not in content):
        return message
    # Some templates look at the first part, so that there must be one.
    pieces = [piece for piece in _CUTS.split(content) if piece and piece != _BORDER] or [""]
    if form.kinds is None:
        # As in vLLM: the pictures come first.
        marks = [piece for piece in pieces if piece in _KINDS]
        texts = [piece for piece in pieces if piece not in _KINDS]
        return {**message, "content": "\n".join([*marks, *texts])}
    return {**message, "content": [_part(piece, form.kinds) for piece in pieces]}


def _part(piece: str, kinds: frozenset[Kind]) -> dict[str, str]:
    kind = _KINDS.get(piece)
    # A mark of another kind stays in the prompt, where it becomes text.
    return {"type": kind} if kind in kinds else {"type": "text", "text": piece}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _has_probe(prompt: str | None) -> bool:
    return prompt is not None and prompt.count(_PROBE) == 1


def _writes(prompt: str | None, plain: str) -> bool:
    return prompt is not None and _has_probe(prompt) and prompt != plain
