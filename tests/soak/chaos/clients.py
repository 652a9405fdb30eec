# SPDX-License-Identifier: Apache-2.0
"""Mixed load whose every answer is known beforehand, while processes are killed and stopped at random.

The scripted engine answers a prompt by the number in it, so that each answer, or the part of it that came before an error,
can be compared. Short requests that are sent all the time show what is unavailable, and for how long.
"""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from scripts.launcher import Stack
from tests.soak.pictures import picture

HANG_S = 240.0  # longer than any limit of the server, and than a restart
NUMBERS = 24
_LIMIT_S = 120.0  # of each request, as a deadline that the server knows
_PING_S = 0.25
# A pause of answers that counts as unavailable. A busy machine alone makes shorter ones.
_GAP_S = 1.0
_CHAT = "/v1/chat/completions"
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
_TOLERANCE = 1e-3


def story(number: int) -> str:
    """The answer to a story's number: from 3 to 95 words, which no other answer has."""
    return f"Story {number:02}: " + " ".join(f"w{number:02}n{word}" for word in range(3 + 4 * number)) + "."


def rules() -> list[dict[str, Any]]:
    """The script of the engine."""
    call = '<tool_call>\n{"name": "f", "arguments": {"number": "%02d"}}\n</tool_call>'
    return [
        *({"contains": f"tell story {one:02}", "text": story(one), "delay_s": 0.02} for one in range(NUMBERS)),
        *({"contains": f"call tool {one:02}", "text": call % one, "delay_s": 0.01} for one in range(NUMBERS)),
        {"contains": "ping", "text": "pong"},
    ]


@dataclass
class ChaosResult:
    """What came of a run. ends: of requests, by kind. wrong: answers that were not as they must be; each is a fault.

    unavailable: seconds without an answer by what was done last, and the number of such gaps.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unavailable: dict[str, list[float]] = field(default_factory=dict)
    deeds: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many requests have ended."""
        return self.ends.total()

    @property
    def hangs(self) -> int:
        """Requests that had not ended long after every limit."""
        return self.ends["hang"]


class Wrong(Exception):
    """An answer with another content than the script's, or in another shape than documented."""


class Deeds:
    """What is done to a stack's processes, at random."""

    def __init__(self, stack: Stack, seed: str, result: ChaosResult, deeds: Mapping[str, float]) -> None:
        self._stack, self._result = stack, result
        self._random = random.Random(seed)  # nosec B311 # no secret is drawn
        self._deeds = deeds
        # What was done last.
        self.last = "nothing"

    def one(self) -> None:
        """Do one thing to one process; returns when it is done."""
        draw = self._random
        deed, victim = draw.choices(list(self._deeds), list(self._deeds.values()))[0].split(" ", 1)
        try:
            process = draw.choice(self._processes(victim))
            if deed == "kill":
                self._did(f"kill {victim}")
                process.kill()
            elif deed == "stop":
                self._stop(process, victim)
            elif deed == "fill":
                self._fill(process, victim)
        except (IndexError, psutil.Error):
            # It is being restarted.
            return

    def _did(self, what: str) -> None:
        self.last = what
        self._result.deeds[what] += 1

    def _stop(self, process: psutil.Process, victim: str) -> None:
        seconds = self._random.choice((0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0))
        kind = "under 2 s" if seconds < 2 else "2 to 10 s"
        self._did(f"stop {victim}, {kind}")
        process.suspend()
        try:
            time.sleep(seconds)
        finally:
            process.resume()

    def _fill(self, process: psutil.Process, victim: str) -> None:
        """Let no file that the process writes become longer, as if the disk of its log were full.

        Only of one that serves, as its listening socket tells: none starts on a full disk.
        """
        if not any(one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp")):
            return
        self._did(f"fill {victim}")
        unlimited = psutil.RLIM_INFINITY
        process.rlimit(psutil.RLIMIT_FSIZE, (1, unlimited))
        try:
            time.sleep(3.0)
        finally:
            process.rlimit(psutil.RLIMIT_FSIZE, (unlimited, unlimited))

    def _processes(self, victim: str) -> list[psutil.Process]:
        """The processes of one kind: frontend, tritonserver, core (of vLLM), or the stubs of a role."""
        parts = self._stack.parts
        if victim == "frontend":
            return [psutil.Process(part.pid) for part in parts if part.name.startswith("frontend")]
        triton = psutil.Process(parts[0].pid)
        if victim == "tritonserver":
            return [triton]
        if victim == "core":
            return [one for one in triton.children(recursive=True) if "EngineCore" in " ".join(one.cmdline())]
        return [one for one in triton.children() if self._is_stub(one, victim)]

    @staticmethod
    def _is_stub(process: psutil.Process, role: str) -> bool:
        arguments = process.cmdline()
        model = next((Path(one).parents[1].name for one in arguments if one.endswith("/1/model.py")), "")
        return model.split(".")[-1] == role and process.status() != psutil.STATUS_ZOMBIE


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
        # When each model last answered a ping that was sent at that time.
        self._answered = dict.fromkeys({text, seeing, embedding} - {None}, 0.0)
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
            pings = [self._ping(model, done, last) for model in self._answered]
            await asyncio.gather(*pings, *(self._client(done) for _ in range(clients)))

    def serves(self, since: float) -> bool:
        """Whether every model has answered what was asked after this time."""
        return min(self._answered.values()) >= since

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
        except (Wrong, LookupError, TypeError, ValueError) as wrong:
            self._result.wrong.append(f"{kind.__name__}: {wrong!r}")
            return "wrong"
        except (aiohttp.ClientError, ConnectionError):
            # Only the death of a frontend may do that.
            return "connection lost"

    async def _ping(self, model: str, done: Callable[[], bool], last: Callable[[], str]) -> None:
        """Note the gaps between short answers."""
        path, body = _CHAT, {"messages": [{"role": "user", "content": "ping"}]}
        if model == self._embedding:
            path, body = "/v1/embeddings", {"input": "ping"}  # type: ignore[dict-item]
        answered, cause = time.monotonic(), ""
        while not done():
            asked, before = time.monotonic(), last()
            try:
                async with (
                    asyncio.timeout(HANG_S),
                    self._session.post(self._url + path, json=body | {"model": model}) as one,
                ):
                    await one.read()
                    ok = one.status == 200
            except (TimeoutError, aiohttp.ClientError, ConnectionError):
                ok = False
            # The deed that the gap began with, also if others were done meanwhile.
            cause = cause or (last() if time.monotonic() - asked > _GAP_S else "" if ok else before)
            if ok:
                if (gap := time.monotonic() - answered) > _GAP_S + _PING_S:
                    self._result.unavailable.setdefault(cause or before, []).append(gap)
                answered, cause = time.monotonic(), ""
                self._answered[model] = asked
            await asyncio.sleep(_PING_S)
        if (gap := time.monotonic() - answered) > _GAP_S + _PING_S:
            self._result.unavailable.setdefault(cause or last(), []).append(gap)

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
        async with self._session.post(self._url + _CHAT, json=body) as response:
            read = await response.read()
            if response.status != 200:
                return _refusal(response, read)
            choice = json.loads(read)["choices"][0]
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
        async with self._session.post(self._url + _CHAT, json=body) as response:
            read = await response.read()
            if response.status != 200:
                return _refusal(response, read)
            choice = json.loads(read)["choices"][0]
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
            if response.status != 200:
                return _refusal(response, await response.read())
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
            raise Wrong("a stream without [DONE]")
        _same(text, expected)
        _same(finish, "tool_calls" if arguments else "stop")
        if arguments:
            _same(json.loads(called), arguments)
        return "ok"

    async def _response(self) -> str:
        """A request to the Responses API."""
        body, expected = self._story()
        asked = {"model": self._text, "input": body["messages"][0]["content"]}
        async with self._session.post(f"{self._url}/v1/responses", json=asked) as response:
            read = await response.read()
            if response.status != 200:
                return _refusal(response, read)
            parts = [part for item in json.loads(read)["output"] for part in item["content"]]
            _same("".join(part["text"] for part in parts), expected)
            return "ok"

    async def _abort(self) -> str:
        """A client that disconnects in its stream."""
        body, _ = self._story()
        async with self._session.post(self._url + _CHAT, json=body | {"stream": True}) as response:
            if response.status != 200:
                return _refusal(response, await response.read())
            left = self._random.randrange(6)
            async for _ in response.content:
                left -= 1
                if left < 0:
                    break
            response.close()
        return "aborted"

    async def _embed(self) -> str:
        text = f"A text to embed, number {self._random.randrange(NUMBERS)}"
        async with self._session.post(
            f"{self._url}/v1/embeddings", json={"model": self._embedding, "input": text}
        ) as response:
            read = await response.read()
            if response.status != 200:
                return _refusal(response, read)
            made = json.loads(read)["data"][0]["embedding"]
            known = self._vectors.setdefault(text, made)
            if max(abs(one - other) for one, other in zip(made, known, strict=True)) > _TOLERANCE:
                raise Wrong(f"another embedding of {text!r}")
            return "ok"


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> str:
    """The kind of an error. Raises Wrong if it is none that a stack in trouble may have."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        raise Wrong(f"{response.status} {body[:200]!r}") from None
    if response.status not in (503, 504, 500) or (response.status == 503 and "Retry-After" not in response.headers):
        raise Wrong(f"{response.status} {body[:200]!r}")
    return f"{response.status} {code}"


async def _events(response: aiohttp.ClientResponse, pause_s: float) -> Any:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].decode().strip()
            if pause_s:
                await asyncio.sleep(pause_s)


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise Wrong(f"{str(found)[-200:]!r} instead of {str(expected)[-200:]!r}")


def run_chaos(
    stack: Stack,
    clients: Clients,
    deeds: Deeds,
    seconds: float,
    *,
    concurrency: int = 16,
    pause_s: tuple[float, float] = (1.0, 8.0),
    seed: str = "0",
) -> None:
    """Run the load and the deeds for so long, and restart what dies; this is the launcher's thread.

    pause_s: the least and the most between two deeds. All but a sixth of them wait until every model serves again: on a
    machine where a start takes a minute, nothing would ever serve otherwise.
    """
    end = time.monotonic() + seconds
    draw = random.Random(seed)  # nosec B311 # no secret is drawn
    stopped = threading.Event()

    def done() -> bool:
        return time.monotonic() >= end or stopped.is_set()

    def disturb() -> None:
        while not done():
            stopped.wait(min(draw.uniform(*pause_s), max(0.0, end - time.monotonic())))
            if not done():
                deeds.one()
                begun = time.monotonic()
                patient = draw.random() > 1 / 6
                while patient and not done() and not clients.serves(begun) and time.monotonic() < begun + HANG_S:
                    stopped.wait(_PING_S)

    failures: list[BaseException] = []

    def load() -> None:
        try:
            asyncio.run(clients.run(concurrency, done, lambda: deeds.last))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load), threading.Thread(target=disturb)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            stack.restart_dead()
            time.sleep(0.05)
    finally:
        stopped.set()
        for thread in threads:
            thread.join(HANG_S)
    if failures:
        raise failures[0]


def living(stack: Stack) -> Iterator[psutil.Process]:
    """All processes of a stack."""
    for part in stack.parts:
        try:
            parent = psutil.Process(part.pid)
            yield from (parent, *parent.children(recursive=True))
        except psutil.Error:
            continue


def left_over(seen: Sequence[psutil.Process]) -> list[str]:
    """Those of these processes that still run, though not as zombies."""
    names = []
    for one in seen:
        try:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                names.append(f"{one.pid} {' '.join(one.cmdline())[:100]}")
        except psutil.Error:
            continue
    return names
