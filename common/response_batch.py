# SPDX-License-Identifier: Apache-2.0
"""New tokens of several requests in one response, for clients that send many requests on one gRPC stream.

What a response costs Triton hardly depends on what is in it. A client gives its requests the parameter
`response_group`: then what the engine has made for all requests of one group travels as one tensor in a response to one
of them, and so does what postprocessing makes of it. Every request still ends with a response of its own.

The tensors are JSON arrays with a row for each response that would have been sent. Rows of one request may arrive out
of order, because Triton writes responses to different requests from several threads.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

# The request parameter: a text that is the same for all requests of a gRPC stream, and for no others.
GROUP = "response_group"
# The parameter of a request to `postprocessing` alone: it forgets the answers of the client in the parameter `owner`
# that began before this time, in seconds of the Unix epoch. The last rows of a client that has died never reach it.
FORGET_BEFORE = "forget_before"
# The outputs, UINT8 [bytes] each: of the engine, and of postprocessing and the ensemble.
TOKENS, ANSWERS = "token_batch", "answer_batch"


class Begin(NamedTuple):
    """What the first row of a request also holds.

    parameters: those of the request, as JSON. reasoning_open: whether the prompt ended inside the reasoning.
    prompt_tokens, cached_tokens: as in AnswerDelta.
    """

    parameters: str
    reasoning_open: int | None
    prompt_tokens: int | None
    cached_tokens: int | None


class TokenRow(NamedTuple):
    """New ids of one request.

    number: counts its rows from 0. finish: a FinishReason with the last. error: with the last of one that fails.
    """

    request_id: str
    stream_id: int
    number: int
    ids: list[int]
    finish: int | None
    begin: Begin | None
    error: str | None = None


class AnswerRow(NamedTuple):
    """The addition to the answer of one request.

    number: that of the TokenRow. more: further fields of AnswerDelta. tokens: ids consumed so far, which are counted if
    the answer is cut off after this row; None with an error.
    """

    request_id: str
    number: int
    text: str
    more: dict[str, Any] | None
    tokens: int | None = None


def encode_rows(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Encode the rows of a batch: TokenRow or AnswerRow, or plain tuples of the same, which take a tenth of the time.

    Numbers of numpy become plain ones. A lone surrogate, which cannot be UTF-8, becomes a question mark. Raises
    TypeError if a row holds what JSON cannot.
    """
    try:
        # orjson refuses subclasses of tuple.
        return orjson.dumps(rows, default=tuple, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return json.dumps(rows, ensure_ascii=False, default=_plain).encode(errors="replace")


def is_encodable(row: tuple[Any, ...]) -> bool:
    """Whether JSON can hold a row."""
    try:
        encode_rows([row])
    except (TypeError, ValueError):
        return False
    return True


def failed_row(row: tuple[Any, ...], error: str) -> TokenRow:
    """The row of an error in the place of a TokenRow that JSON cannot hold."""
    request_id, stream_id, number = row[:3]
    return TokenRow(request_id, stream_id, number, [], None, None, error)


def _plain(value: Any) -> Any:
    """The plain number or list of one of numpy, for what orjson refuses; raises TypeError if it is none."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"JSON cannot hold {type(value).__name__}")


def decode_rows(batch: bytes) -> list[list[Any]]:
    """Decode the rows of a batch: the fields of each, and after them what a newer version adds.

    To make objects of them takes longer than this. Raises ValueError if it is no batch.
    """
    rows: list[list[Any]] = orjson.loads(batch)
    return rows


def decode_tokens(batch: bytes) -> list[TokenRow]:
    """Decode what the engine sent; raises ValueError if it is no batch."""
    rows = [TokenRow(*row[: len(TokenRow._fields)]) for row in decode_rows(batch)]
    return [row if row.begin is None else row._replace(begin=Begin(*row.begin)) for row in rows]
