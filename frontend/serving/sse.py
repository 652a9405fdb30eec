# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: frames prebuilt but for what changes from token to token."""

from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"


def error_event(body: bytes) -> bytes:
    """Return the event that ends a stream with an error. body: the error object as JSON."""
    return b"data: " + body + b"\n\n"


class ChunkFrames:
    """Frames of one streamed answer.

    head: the fields that every chunk of the answer shares (id, object, created, model, ...).
    with_usage: chunks carry `"usage": null`, as the API has it where the client asked for usage.
    """

    def __init__(self, head: dict[str, Any], choices: int, *, with_usage: bool) -> None:
        start = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
        self._start = start
        self._prefixes = [start + b'{"index":%d,' % choice for choice in range(choices)]
        self._suffix = b'}],"usage":null}\n\n' if with_usage else b"}]}\n\n"

    def chunk(self, choice: int, key: bytes, value: bytes, logprobs: bytes = b"null", finish: bytes = b"null") -> bytes:
        """One chunk. key: "delta" or "text" with quotes; value, logprobs, finish: JSON."""
        return b"".join(
            (
                self._prefixes[choice],
                key,
                b":",
                value,
                b',"logprobs":',
                logprobs,
                b',"finish_reason":',
                finish,
                self._suffix,
            )
        )

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The last chunk: no choices, the token counts."""
        return self._start + b'],"usage":' + orjson.dumps(usage) + b"}\n\n"
