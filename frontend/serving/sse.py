# SPDX-License-Identifier: Apache-2.0
"""Server-sent events, with everything that does not change between tokens built beforehand."""

from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"


def error_event(body: bytes) -> bytes:
    """Return the event that ends a stream with an error. body: the error object as JSON."""
    return b"data: " + body + b"\n\n"


class ChunkFrames:
    """Writes the chunks of one streamed answer.

    head: the fields that all chunks share (id, object, created, model, ...).
    with_usage: chunks have `"usage": null`, as the API requires if the client asked for usage. text: the key of a chunk
    with a text, and the JSON before the text and after it.
    """

    def __init__(
        self, head: dict[str, Any], choices: int, *, with_usage: bool, text: tuple[bytes, bytes, bytes]
    ) -> None:
        start = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
        self._start = start
        self._prefixes = [start + b'{"index":%d,' % choice for choice in range(choices)]
        self._suffix = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        # What is before a text and after it, in a chunk with nothing else.
        key, begin, end = text
        chunks = [self.chunk(choice, key, begin + b"\0" + end) for choice in range(choices)]
        self._around_text = [(before, after) for before, _, after in (chunk.partition(b"\0") for chunk in chunks)]

    def text(self, choice: int, text: str) -> bytes:
        """Write a chunk with a text and nothing else; not for chunks with usage (`set_usage`)."""
        before, after = self._around_text[choice]
        return before + orjson.dumps(text) + after

    def set_usage(self, usage: dict[str, Any]) -> None:
        """Give the following chunks this usage instead of null."""
        self._suffix = b',"usage":' + orjson.dumps(usage) + b"}\n\n"

    def chunk(
        self,
        choice: int,
        key: bytes,
        value: bytes,
        logprobs: bytes = b"null",
        finish: bytes = b"null",
        *,
        more: bytes = b"",
        beside: bytes = b"",
    ) -> bytes:
        """Write one chunk. key: "delta" or "text" with quotes; value, logprobs, finish: JSON.

        more, beside: further fields of the choice, and of the chunk, as JSON, each after a comma.
        """
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
                more,
                b"}]",
                beside,
                self._suffix,
            )
        )

    def usage(self, usage: dict[str, Any], more: dict[str, Any]) -> bytes:
        """Write the last chunk: no choices, only the token counts. more: other fields."""
        return self._start + b"]," + orjson.dumps({"usage": usage} | more)[1:] + b"\n\n"
