# SPDX-License-Identifier: Apache-2.0
"""Send made-up requests to a server, and judge its answers by its OpenAPI document."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import jsonschema_rs
from yarl import URL

from frontend.endpoints.openapi import document
from tests.soak.made_requests import Made, RequestMaker
from tests.soak.odd_values import JSON
from tests.soak.tally import Tally

# An answer that has not ended by then hangs. The server's own limits are shorter where a request sets them.
HANG_S = 120.0
_KEPT = 40  # findings of each kind of run, with their requests
_SHOWN = 4000  # bytes of a request in a finding


class Judge:
    """Finds faults in answers by the schemas of the document."""

    def __init__(self) -> None:
        about = document()
        self._operations = {
            (method.upper(), path): operation
            for path, item in about["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        }
        self._components = about["components"]
        self._validators: dict[str, Any] = {}

    def faults(self, made: Made, status: int, media_type: str, body: bytes, tally: Tally) -> str | None:
        """What is wrong with an answer in some words, or None."""
        if made.method == "HEAD":  # It has no body to judge.
            return None
        if status >= 500 and not _expected(made, status, body):
            return f"{status} {_error(body)}"
        operation = self._operations.get((made.method, made.template))
        if operation is None:
            return None
        about = operation["responses"].get(str(status))
        if about is None:
            # A path that was made of odd names may lead elsewhere, where there is nothing or another method.
            return None if status in (404, 405) else f"{status} is not documented"
        content = about["content"].get(media_type)
        if content is None:
            return f"{status} with {media_type or 'no type'}"
        if media_type == "text/event-stream":
            return _stream_fault(made, body, tally)
        return None if media_type != JSON else self._mistake(content["schema"], body)

    def _mistake(self, schema: Mapping[str, Any], body: bytes) -> str | None:
        key = json.dumps(schema)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.Draft202012Validator({**schema, "components": self._components})
        try:
            error = next(iter(self._validators[key].iter_errors(json.loads(body))), None)
        except ValueError:
            return "the body is not JSON"
        return None if error is None else f"not as documented: {list(error.instance_path)} {error.message[:200]}"


def _expected(made: Made, status: int, body: bytes) -> bool:
    """Whether an answer of 5xx is what the request asked for: a deadline, or a service that this server does not have."""
    if status == 504:
        return "X-Request-Timeout" in made.headers
    if status == 503 and made.template.startswith(("/admin", "/health")):
        return b"No launcher controls" in body or "model=" in made.target
    return False


def _error(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return f"{error.get('code', error['type'])}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return repr(body[:200])


def _stream_fault(made: Made, body: bytes, tally: Tally) -> str | None:
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if made.template != "/v1/messages" and (not events or events.pop() != b"[DONE]"):
        return "a stream without [DONE]"
    for event in events:
        try:
            read = json.loads(event)
        except ValueError:
            return "an event that is not JSON"
        error = read.get("error") or (read.get("response") or {}).get("error")
        if error:
            code = error.get("code") or error.get("type")
            tally.errors[f"{code}"] += 1
            if code in ("internal_error", "server_error", "api_error"):
                return f"in a stream, {error}"
    return None


class Attacker:
    """Sends made requests to one server. bearer: a key that most requests have."""

    def __init__(self, url: str, maker: RequestMaker, bearer: str | None = None) -> None:
        self._url = url
        self._maker = maker
        self._bearer = bearer
        self._judge = Judge()
        self.tally = Tally()

    async def run(self, count: int, concurrency: int, seconds: float = math.inf) -> Tally:
        """Send requests for so many seconds at most; returns what came of all so far."""
        until = time.monotonic() + seconds
        left = iter(range(count))
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Content-Type"),
        ) as session:

            async def client() -> None:
                while time.monotonic() < until and next(left, None) is not None:
                    await self._one(session)

            await asyncio.gather(*[client() for _ in range(concurrency)])
        return self.tally

    async def _one(self, session: aiohttp.ClientSession) -> None:
        made = self._maker.make()
        try:
            async with asyncio.timeout(HANG_S):
                status, media_type, body = await self._send(session, made)
        except TimeoutError:
            self._found(made, "hang", "no answer")
            return
        except (aiohttp.ClientError, ConnectionError) as error:
            # An odd target or a header that closes the connection; a server that has gone is found by the next request.
            self._found(made, type(error).__name__, str(error))
            return
        self.tally.count(made.template, str(status))
        fault = self._judge.faults(made, status, media_type, body, self.tally)
        if fault is not None:
            self._keep(f"{made.template}: {fault}", made)

    async def _send(self, session: aiohttp.ClientSession, made: Made) -> tuple[int, str, bytes]:
        key = {} if self._bearer is None else {"Authorization": f"Bearer {self._bearer}"}
        headers = {"Content-Type": JSON, **key, **made.headers}
        target = URL(self._url + made.target, encoded=True)
        async with session.request(made.method, target, data=made.body, headers=headers) as response:
            return response.status, response.content_type, await response.read()

    def _found(self, made: Made, what: str, words: str) -> None:
        self.tally.count(made.template, what)
        self._keep(f"{made.template}: {what} {words}", made)

    def _keep(self, fault: str, made: Made) -> None:
        if len(self.tally.findings) < _KEPT:
            head = f"{made.method} {made.target[:300]} {dict(made.headers)}"
            self.tally.findings.setdefault(fault, f"{head}\n{(made.body or b'')[:_SHOWN]!r}")
