# SPDX-License-Identifier: Apache-2.0
"""A client for streamed chat completions over HTTP that does little more than find events and parse their JSON."""

import base64
import time
from typing import Any, Self

import aiohttp
import orjson

from scripts.bench.questions import Answer, Failure, Question, Sample, check_result

TIMEOUT_S = 3600.0
# uvicorn closes connections that were idle for 5 s, as between warm-up and measured part. A request sent at that moment
# would fail, so the client closes them first.
KEPT_ALIVE_S = 2.0
_PREFIX = b"data: "
# A traced request's parent, a span that nobody sends.
_PARENT = f"{1:016x}"
# Fields of a delta that may carry content; servers differ in the names.
_CONTENT = ("content", "reasoning_content", "reasoning", "tool_calls")


class HttpClient:
    """Sends requests to one server of the OpenAI API; one client per process, connections are kept alive."""

    def __init__(self, url: str, model: str) -> None:
        """Create a client. url: without /v1."""
        self._url, self._model = f"{url}/v1/chat/completions", model

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    def prepare(self, question: Question) -> bytes:
        """Serialise the body of a request, outside the measured time."""
        return orjson.dumps(body(question, self._model))

    async def ask(self, question: Question, prepared: bytes) -> Answer:
        """Send a request and read its stream to the end."""
        sent = time.monotonic()
        try:
            headers = {"Content-Type": "application/json"}
            if question.trace_id:
                headers["traceparent"] = f"00-{question.trace_id}-{_PARENT}-01"
            async with self._session.post(self._url, data=prepared, headers=headers) as response:
                if response.status != 200:
                    return Failure(f"HTTP {response.status}: {(await response.text())[:300]}")
                reader = EventReader()
                async for data in response.content.iter_any():
                    reader.feed(data, time.monotonic())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return Failure(f"{type(error).__name__}: {error}")
        return reader.answer(question, sent)


def body(question: Question, model: str) -> dict[str, Any]:
    """The JSON body of a chat completion."""
    files = iter(question.images)
    return {
        "model": model,
        "messages": [_with_files(message, files) for message in question.messages],
        "max_tokens": question.output_tokens,
        "temperature": question.temperature,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _with_files(message: dict[str, Any], files: Any) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return message
    parts = [
        {"type": "image_url", "image_url": {"url": _data_url(next(files))}} if part["type"] == "image_url" else part
        for part in message["content"]
    ]
    return message | {"content": parts}


def _data_url(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


class EventReader:
    """Reads server-sent events from pieces of any size; an event arrives with the piece that completes it."""

    def __init__(self) -> None:
        self._rest = b""
        self._chunks: list[float] = []
        self._ended: float | None = None
        self._usage: dict[str, int] | None = None
        self._failure: str | None = None

    def feed(self, data: bytes, now: float) -> None:
        """Process bytes that arrived at `now`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self._event(orjson.loads(line[len(_PREFIX) :]), now)

    def answer(self, question: Question, sent: float) -> Answer:
        """The result of the whole stream."""
        if self._failure is not None:
            return Failure(self._failure)
        if self._ended is None or self._usage is None:
            return Failure("the stream ended without a finish_reason or without usage")
        counts = self._usage["prompt_tokens"], self._usage["completion_tokens"]
        return check_result(question, Sample(sent, tuple(self._chunks), self._ended, *counts, question.trace_id))

    def _event(self, event: dict[str, Any], now: float) -> None:
        if "error" in event:
            self._failure = str(event["error"])[:300]
            return
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(delta.get(name) for name in _CONTENT):
                self._chunks.append(now)
            if choice.get("finish_reason"):
                self._ended = now
        self._usage = event.get("usage") or self._usage
