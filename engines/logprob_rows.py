# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of new ids from rows of id -> (logprob, rank), as both vLLM and TensorRT-LLM return them."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.finish_reason import FinishReason
from engines.engine import Tokens


def add_logprobs(tokens: Tokens, rows: Sequence[Mapping[int, Any]], count: int) -> None:
    """Set the log-probabilities of the tokens.

    rows: one per id, each including the id itself. count: alternatives per token.
    """
    tokens.logprobs = [row[token].logprob for row, token in zip(rows, tokens.ids, strict=True)]
    if count:
        ranked = [sorted(row.items(), key=lambda item: item[1].rank)[:count] for row in rows]
        tokens.top_ids = [[token for token, _ in row] for row in ranked]
        tokens.top_logprobs = [[logprob.logprob for _, logprob in row] for row in ranked]


def cut(tokens: Tokens, count: int) -> Tokens:
    """Cut the tokens to the first `count` ids, as the last response of a generation that stop words ended."""
    tokens.ids, tokens.finish = tokens.ids[:count], FinishReason.STOP_WORDS
    tokens.logprobs = tokens.logprobs and tokens.logprobs[:count]
    tokens.top_ids = tokens.top_ids and tokens.top_ids[:count]
    tokens.top_logprobs = tokens.top_logprobs and tokens.top_logprobs[:count]
    return tokens
