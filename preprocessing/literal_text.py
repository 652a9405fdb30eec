# SPDX-License-Identifier: Apache-2.0
"""Keeps special tokens that a client spells in a chat's text: they are tokenized as the text that they are.

A prompt is rendered to text before it is tokenized, so `<|im_end|>` in a message could end the message. Each special
token in the client's strings is replaced by a placeholder before the template sees them. The rendered prompt is then
tokenized as one text, in which only the tokens that the template wrote are tokens. All other ids are the same as ever.
"""

import re
import secrets
from collections.abc import Collection, Iterable
from threading import Lock
from typing import Any

from tokenizers import AddedToken, Tokenizer

from common.tokenizer import ChatTokenizer

# JSON escapes that can hide a token's characters in a request's text.
_HIDING = ("\\u", "\\/")


class LiteralText:
    """Replaces special tokens in the strings of chats, and tokenizes prompts with such replacements.

    Safe to use from several threads. Tokenizing needs a second tokenizer, which is made when it is first needed.
    """

    def __init__(
        self, tokenizer: ChatTokenizer, markers: Iterable[str] = (), answer_tokens: Iterable[str] = ()
    ) -> None:
        """Prepare for one checkpoint.

        markers: further tokens that only the prompt itself may have, such as those of images.
        answer_tokens: tokens that a model writes in its answers, such as `<think>`; they stay in its earlier answers.
        """
        self._backend = tokenizer.backend
        self._added = {token.content: token for token in self._backend.get_added_tokens_decoder().values()}
        special = [content for content, token in self._added.items() if token.special]
        found = {token: tokenizer.token_id(token) for token in (*special, *markers)}
        self._token_ids = {token: token_id for token, token_id in found.items() if token_id is not None}
        self._tokens = list(self._token_ids)
        self._answer_tokens = frozenset(answer_tokens)
        # Placeholders and stand-ins consist of ASCII letters and digits, which no template and no JSON escapes. No
        # client can guess them. The outer characters stay, since some templates look for "<" in a text.
        self._mark, stand_in = secrets.token_hex(6), secrets.token_hex(6)
        self._placeholders = {
            token: f"{token[:1]}{self._mark}n{number}x{token[-1:]}" for number, token in enumerate(self._tokens)
        }
        self._stand_ins = {token: f"{stand_in}n{number}x" for number, token in enumerate(self._tokens)}
        self._placeholder = re.compile(f"{self._mark}n([0-9]+)x")
        self._every, self._in_answers = _pattern(self._tokens), _pattern(set(self._tokens) - self._answer_tokens)
        self._lock = Lock()
        self._literal: Tokenizer | None = None
        self._ids: dict[int, int] = {}

    def may_spell(self, request: str) -> bool:
        """Whether the JSON text of a request may spell a special token; most do not, and need no `escape`."""
        return any(escape in request for escape in _HIDING) or self._every.search(request) is not None

    def escape(self, value: Any, role: str, keep: Collection[str] = ()) -> Any:
        """JSON with placeholders for the special tokens in its strings and keys.

        role: the role of the message; an assistant's may hold the tokens of answers. keep: further tokens to keep.
        """
        if isinstance(value, str):
            pattern = self._in_answers if role == "assistant" else self._every
            return pattern.sub(lambda found: found[0] if found[0] in keep else self._placeholders[found[0]], value)
        if isinstance(value, dict):
            return {self.escape(name, role, keep): self.escape(item, role, keep) for name, item in value.items()}
        return [self.escape(item, role, keep) for item in value] if isinstance(value, list) else value

    def restore(self, text: str) -> str:
        """The text with the special tokens that placeholders stand for."""
        return (
            self._placeholder.sub(lambda found: self._tokens[int(found[1])][1:-1], text) if self._mark in text else text
        )

    def holds_placeholders(self, prompt: str) -> bool:
        """Whether a rendered prompt has placeholders, so that only `encode` can tokenize it."""
        return self._mark in prompt

    def encode(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt, in which placeholders are text and special tokens are tokens."""
        literal = self._literal_tokenizer()
        written = self._every.sub(lambda found: self._stand_ins[found[0]], prompt)
        (encoding,) = literal.encode_batch_fast([self.restore(written)], add_special_tokens=False)
        return [self._ids.get(token_id, token_id) for token_id in encoding.ids]

    def _literal_tokenizer(self) -> Tokenizer:
        """A copy of the tokenizer that knows special tokens only under the names of their stand-ins."""
        with self._lock:
            if self._literal is None:
                literal = Tokenizer.from_str(self._backend.to_str())
                literal.add_special_tokens(
                    [_copy(self._added.get(token), token, special=True) for token in self._tokens]
                )
                for token, stand_in in self._stand_ins.items():
                    literal.add_tokens([_copy(self._added.get(token), stand_in, special=False)])
                vocab = literal.get_added_tokens_decoder()
                real = {self._stand_ins[token]: self._token_ids[token] for token in self._tokens}
                self._ids = {at: real[added.content] for at, added in vocab.items() if added.content in real}
                literal.encode_special_tokens = True
                self._literal = literal
        return self._literal


def _pattern(tokens: Collection[str]) -> re.Pattern[str]:
    # Longer tokens first: of two that begin at the same character the longer counts, as in tokenizers.
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _copy(token: AddedToken | None, content: str, *, special: bool) -> AddedToken:
    """A token of the same behaviour with another content."""
    if token is None:
        return AddedToken(content, special=special, normalized=False)
    return AddedToken(
        content,
        special=special,
        normalized=token.normalized if special else False,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
    )
