# SPDX-License-Identifier: Apache-2.0
"""Requests of many kinds, each with an answer that is known."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

from tests.soak.chaos.availability import Availability
from tests.soak.chaos.known_answers import NUMBERS, story
from tests.soak.chaos.result import ChaosResult, WrongAnswer
from tests.soak.pictures import picture

HANG_S = 240.0  # longer than any limit of the server, and than a restart
_LIMIT_S = 120.0  # of each request, as a deadline that the server knows
_CHAT = "/v1/chat/completions"
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
_TOLERANCE = 1e-3


class Refused(Exception):
    """A request was answered with an error that a stack in trouble may have; its text is the kind."""


class Clients:
    """The load: requests of many kinds to one server, each with an answer that is known.

    text, seeing, embedding: names of models; None if there is none of this kind.
    """

    def __init__(
        self,
        url: str,
        seed: str,
        result: ChaosResult,
        *,
        text: str,
        seeing: str | None = None,
        embedding: str | None = None,
    ) -> None:
        self._url, self._result = url, result
        self._random = random.Random(seed)  # nosec B311 # no secret is drawn
        self._text, self._seeing, self._embedding = text, seeing, embedding
        self._vectors: dict[str, list[float]] = {}
        models = {text, seeing, embedding} - {None}
        self.availability = Availability(url, models, result, embedding=embedding)
        self._kinds: dict[Callable[[], Any], int] = {
            self._stream: 6, self._whole: 4, self._tool: 3, self._slow: 1, self._abort: 2, self._response: 2
        }  # fmt: skip
        self._kinds |= {} if seeing is None else {self._picture: 3}
        self._kinds |= {} if embedding is None else {self._embed: 3}
        self._session: aiohttp.ClientSession

    async def run(self, clients: int, done: Callable[[], bool], last: Callable[[], str]) -> None:
        """Send requests until `done`, then wait for those in progress. last: what was done last to the stack."""
        headers = {"X-Request-Timeout": f"{_LIMIT_S:g}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
        ) as self._session:
            pings = self.availability.ping(self._session, done, last)
            await asyncio.gather(pings, *(self._client(done) for _ in range(clients)))

    async def _client(self, done: Callable[[], bool]) -> None:
        while not done():
            kind = self._random.choices(list(self._kinds), list(self._kinds.values()))[0]
            end = await self._bounded(kind)
            self._result.ends[f"{end}"] += 1
            if end not in ("ok", "aborted"):
                await asyncio.sleep(0.2)

    async def _bounded(self, kind: Callable[[], Any]) -> str:
        try:
            async with asyncio.timeout(HANG_S):
                return str(await kind())
        except TimeoutError:
            return "hang"
        except Refused as refused:
            return str(refused)
        except (WrongAnswer, LookupError, TypeError, ValueError) as wrong:
            self._result.wrong.append(f"{kind.__name__}: {wrong!r}")
            return "wrong"
        except (aiohttp.ClientError, ConnectionError):
            # Only the death of a frontend may do that.
            return "connection lost"

    def _story(self) -> tuple[dict[str, Any], str]:
        number = self._random.randrange(NUMBERS)
        messages = [{"role": "user", "content": f"Please tell story {number:02} now."}]
        return {"model": self._text, "messages": messages}, story(number)

    async def _whole(self) -> str:
        body, expected = self._story()
        return await self._answer(body, expected)

    async def _picture(self) -> str:
        body, expected = self._story()
        (message,) = body["messages"]
        parts = [
            {"type": "image_url", "image_url": {"url": picture(self._random.randrange(1000))}},
            {"type": "text", "text": message["content"]},
        ]
        body |= {"model": self._seeing, "messages": [{"role": "user", "content": parts}]}
        return await (self._streamed(body, expected) if self._random.random() < 0.5 else self._answer(body, expected))

    async def _answer(self, body: Mapping[str, Any], expected: str) -> str:
        choice = (await self._ask(_CHAT, body))["choices"][0]
        _same(choice["message"]["content"], expected)
        _same(choice["finish_reason"], "stop")
        return "ok"

    async def _tool(self) -> str:
        number = self._random.randrange(NUMBERS)
        body: dict[str, Any] = {"model": self._text, "tools": [_TOOL], "stream": self._random.random() < 0.5}
        body["messages"] = [{"role": "user", "content": f"Please call tool {number:02} now."}]
        expected = {"number": f"{number:02}"}
        if body["stream"]:
            return await self._streamed(body, "", expected)
        choice = (await self._ask(_CHAT, body))["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        _same((call["function"]["name"], json.loads(call["function"]["arguments"])), ("f", expected))
        _same(choice["finish_reason"], "tool_calls")
        return "ok"

    async def _stream(self) -> str:
        return await self._streamed(*self._story())

    async def _slow(self) -> str:
        """A client that reads its stream with pauses."""
        return await self._streamed(*self._story(), pause_s=0.05)

    async def _streamed(
        self, body: Mapping[str, Any], expected: str, arguments: Any = None, *, pause_s: float = 0.0
    ) -> str:
        text, called, finish, error, ended = "", "", None, None, False
        async with self._session.post(self._url + _CHAT, json={**body, "stream": True}) as response:
            await _check(response)
            try:
                async for event in _events(response, pause_s):
                    if event == "[DONE]":
                        ended = True
                        break
                    read = json.loads(event)
                    if "error" in read:
                        error = read["error"]["code"]
                        continue
                    for choice in read["choices"]:
                        text += choice["delta"].get("content") or ""
                        for call in choice["delta"].get("tool_calls") or ():
                            called += call["function"].get("arguments") or ""
                        finish = choice["finish_reason"] or finish
            except (aiohttp.ClientError, ConnectionError):
                error = "connection lost"
        if error is not None:
            # What came before the error is right as far as it goes.
            _same(text, expected[: len(text)])
            return f"in a stream: {error}"
        if not ended:
            raise WrongAnswer("a stream without [DONE]")
        _same(text, expected)
        _same(finish, "tool_calls" if arguments else "stop")
        if arguments:
            _same(json.loads(called), arguments)
        return "ok"

    async def _response(self) -> str:
        """A request to the Responses API."""
        body, expected = self._story()
        asked = {"model": self._text, "input": body["messages"][0]["content"]}
        answer = await self._ask("/v1/responses", asked)
        parts = [part for item in answer["output"] for part in item["content"]]
        _same("".join(part["text"] for part in parts), expected)
        return "ok"

    async def _abort(self) -> str:
        """A client that disconnects in its stream."""
        body, _ = self._story()
        async with self._session.post(self._url + _CHAT, json=body | {"stream": True}) as response:
            await _check(response)
            left = self._random.randrange(6)
            async for _ in response.content:
                left -= 1
                if left < 0:
                    break
            response.close()
        return "aborted"

    async def _embed(self) -> str:
        text = f"A text to embed, number {self._random.randrange(NUMBERS)}"
        answer = await self._ask("/v1/embeddings", {"model": self._embedding, "input": text})
        made = answer["data"][0]["embedding"]
        known = self._vectors.setdefault(text, made)
        if max(abs(one - other) for one, other in zip(made, known, strict=True)) > _TOLERANCE:
            raise WrongAnswer(f"another embedding of {text!r}")
        return "ok"

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a request; returns its JSON answer. Raises Refused for an error."""
        async with self._session.post(self._url + path, json=body) as response:
            await _check(response)
            return json.loads(await response.read())


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise Refused if the answer is an error, or WrongAnswer if it is none that a stack in trouble may have."""
    if response.status == 200:
        return
    body = await response.read()
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        raise WrongAnswer(f"{response.status} {body[:200]!r}") from None
    if response.status not in (503, 504, 500) or (response.status == 503 and "Retry-After" not in response.headers):
        raise WrongAnswer(f"{response.status} {body[:200]!r}")
    raise Refused(f"{response.status} {code}")


async def _events(response: aiohttp.ClientResponse, pause_s: float) -> AsyncIterator[str]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].decode().strip()
            if pause_s:
                await asyncio.sleep(pause_s)


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise WrongAnswer(f"{str(found)[-200:]!r} instead of {str(expected)[-200:]!r}")
