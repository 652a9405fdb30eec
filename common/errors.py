# SPDX-License-Identifier: Apache-2.0
"""The error type of all requests, which can be passed through Triton as text.

Triton's gRPC stream carries errors as text, which every layer may wrap ("in ensemble ..."). `encode` writes a marker
that `decode` finds in that text, so that the frontend can choose the HTTP status without parsing words.
"""

import json
from typing import Literal, get_args

Kind = Literal["invalid_request", "not_found", "context_length", "cancelled", "timeout", "unavailable", "internal"]

_OPEN, _CLOSE = "<<request-error ", ">>"


class RequestError(ValueError):
    """A request that cannot be served, with a message that helps the client to fix it.

    kind: the kind of error, which the frontend maps to an HTTP status.
    param: the invalid OpenAI request field, or None.
    """

    def __init__(self, message: str, *, kind: Kind = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind: Kind = kind
        self.param = param

    def again(self) -> "RequestError":
        """Return an equal error: one that several raise would have the frames of all of them in its traceback."""
        return RequestError(self.message, kind=self.kind, param=self.param)

    def encode(self) -> str:
        """The error as text for a Triton error message."""
        body = json.dumps({"kind": self.kind, "param": self.param, "message": self.message})
        return f"{_OPEN}{body}{_CLOSE}"

    @classmethod
    def decode(cls, text: str) -> "RequestError | None":
        """The error inside a Triton error message, or None if the message has no valid marker."""
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
