# SPDX-License-Identifier: Apache-2.0
"""Keeps the tokens of markup that a client spells in a chat's text: they are tokenized as the text that they are.

A prompt is rendered to text before it is tokenized, so `<|im_end|>` in a message could end the message, and
`</tool_response>` in a tool's result the result. Each such token in the client's strings is replaced by a placeholder
before the template sees them. The rendered prompt is then tokenized as one text, in which only the tokens that the
template wrote are tokens. All other ids are the same as ever.
"""

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

from common.tokenizer import ChatTokenizer

# JSON escapes that can hide a token's characters in a request's text.
_HIDING = ("\\u", "\\/")


class LiteralText:
    """Replaces tokens of markup in the strings of chats, and tokenizes prompts with such replacements.

    Safe to use from several threads.
    """

    def __init__(
        self, tokenizer: ChatTokenizer, markers: Iterable[str] = (), answer_tokens: Iterable[str] = ()
    ) -> None:
        """Prepare for one checkpoint.

        markers: further tokens that only the prompt itself may have, such as those of images.
        answer_tokens: tokens that a model writes in its answers, such as `<think>`; they stay in its earlier answers.
        """
        added = {token.content: token for token in tokenizer.backend.get_added_tokens_decoder().values()}
        special = {content for content, token in added.items() if token.special} | set(markers)
        found = {token: tokenizer.token_id(token) for token in (*_markup(tokenizer.backend, added), *markers)}
        self._token_ids = {token: token_id for token, token_id in found.items() if token_id is not None}
        self._tokens = list(self._token_ids)
        # Placeholders and stand-ins consist of ASCII letters and digits, which no template and no JSON escapes. No
        # client can guess them. The outer characters stay, since some templates look for "<" in a text.
        self._mark, stand_in = secrets.token_hex(6), secrets.token_hex(6)
        self._placeholders = {
            token: f"{token[:1]}{self._mark}n{number}x{token[1:][-1:]}" for number, token in enumerate(self._tokens)
        }
        self._stand_ins = {token: f"{stand_in}n{number}x" for number, token in enumerate(self._tokens)}
        self._placeholder = re.compile(f"{self._mark}n([0-9]+)x")
        self._every = _pattern(self._tokens)
        # Templates take thoughts and calls out of an earlier answer, and the model wrote them as tokens.
        self._in_answers = _pattern(special.intersection(self._tokens).difference(answer_tokens))
        self._literal, self._ids = self._literal_tokenizer(tokenizer.backend, added)

    def may_spell(self, request: str) -> bool:
        """Whether the JSON text of a request may spell a token of markup; most do not, and need no `escape`."""
        return any(escape in request for escape in _HIDING) or self._every.search(request) is not None

    def escape(self, value: Any, role: str, keep: Collection[str] = ()) -> Any:
        """JSON with placeholders for the tokens of markup in its strings and keys.

        role: the role of the message; an assistant's may hold the tokens of answers. keep: further tokens to keep.
        """
        if isinstance(value, str):
            pattern = self._in_answers if role == "assistant" else self._every
            return pattern.sub(lambda found: found[0] if found[0] in keep else self._placeholders[found[0]], value)
        if isinstance(value, dict):
            return {self.escape(name, role, keep): self.escape(item, role, keep) for name, item in value.items()}
        return [self.escape(item, role, keep) for item in value] if isinstance(value, list) else value

    def restore(self, text: str) -> str:
        """The text with the tokens that placeholders stand for."""
        return (
            self._placeholder.sub(lambda found: self._tokens[int(found[1])][1:-1], text) if self._mark in text else text
        )

    def holds_placeholders(self, prompt: str) -> bool:
        """Whether a rendered prompt has placeholders, so that only `encode` can tokenize it."""
        return self._mark in prompt

    def encode(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt, in which placeholders are text and tokens are tokens."""
        written = self._every.sub(lambda found: self._stand_ins[found[0]], prompt)
        (encoding,) = self._literal.encode_batch_fast([self.restore(written)], add_special_tokens=False)
        return [self._ids.get(token_id, token_id) for token_id in encoding.ids]

    def _literal_tokenizer(
        self, backend: Tokenizer, added: Mapping[str, AddedToken]
    ) -> tuple[Tokenizer, dict[int, int]]:
        """A tokenizer that knows the tokens of markup only as their stand-ins, and its ids -> those of `backend`.

        It shares the vocabulary, which makes it cheap: a copy takes a second and 300 MB with a large vocabulary.
        """
        literal = Tokenizer(backend.model)
        literal.normalizer, literal.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        literal.add_tokens([token for content, token in added.items() if content not in self._stand_ins])
        literal.add_tokens([_stand_in(added.get(token), name) for token, name in self._stand_ins.items()])
        real = {token.content: token_id for token_id, token in backend.get_added_tokens_decoder().items()}
        real |= {stand_in: self._token_ids[token] for token, stand_in in self._stand_ins.items()}
        return literal, {at: real[token.content] for at, token in literal.get_added_tokens_decoder().items()}


def _markup(backend: Tokenizer, added: Mapping[str, AddedToken]) -> list[str]:
    """The added tokens that stand for something else than their text.

    What the model's own vocabulary has, and runs of spaces, are ordinary text that a tokenizer finds first: Gemma's
    `<table>` and blank lines. Others were added for markup, such as `<tool_call>` and `<|fim_prefix|>`; many
    checkpoints do not call them special, so that they stay in decoded answers.
    """
    return [
        content
        for content, token in added.items()
        if token.special or (content.strip() and backend.model.token_to_id(content) is None)
    ]


def _pattern(tokens: Collection[str]) -> re.Pattern[str]:
    # Longer tokens first: of two that begin at the same character the longer counts, as in tokenizers.
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _stand_in(token: AddedToken | None, name: str) -> AddedToken:
    """A token of the same behaviour under another name."""
    if token is None:
        return AddedToken(name, normalized=False)
    return AddedToken(name, normalized=False, lstrip=token.lstrip, rstrip=token.rstrip, single_word=token.single_word)
