# SPDX-License-Identifier: Apache-2.0
"""One error type that survives the trip through Triton.

Triton's gRPC stream carries an error as text alone, wrapped by every layer it passes ("in ensemble ...").
`encode` writes a marker that `decode` finds again inside that text, so that the frontend can choose the
HTTP status without guessing from words.
"""

import json
from typing import Literal, get_args

Kind = Literal["invalid_request", "context_length", "cancelled", "timeout", "unavailable", "internal"]

_OPEN, _CLOSE = "<<request-error ", ">>"


class RequestError(ValueError):
    """A request that cannot be served, with what the client needs to mend it.

    kind: what went wrong; the frontend maps it to an HTTP status.
    param: the OpenAI request field at fault, or None.
    """

    def __init__(self, message: str, *, kind: Kind = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind: Kind = kind
        self.param = param

    def encode(self) -> str:
        """The error as text for a Triton error message."""
        body = json.dumps({"kind": self.kind, "param": self.param, "message": self.message})
        return f"{_OPEN}{body}{_CLOSE}"

    @classmethod
    def decode(cls, text: str) -> "RequestError | None":
        """The error inside a Triton error message, or None where the message is not one of ours."""
        start, end = text.find(_OPEN), text.rfind(_CLOSE)
        if start < 0 or end < start:
            return None
        try:
            body = json.loads(text[start + len(_OPEN) : end])
            message, kind, param = body["message"], body["kind"], body["param"]
        except (ValueError, KeyError, TypeError):
            return None
        if kind not in get_args(Kind):
            return None
        return cls(message, kind=kind, param=param)
