# SPDX-License-Identifier: Apache-2.0
"""Clients that ask again and again while something is done to the servers, and check every answer."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

LIMIT_S = 120.0


class SteadyLoad:
    """Clients of the chat endpoint, half of them with streams.

    prompt, answer: the message of a request's number, and the text that must come. ends: how requests ended; `right` is
    the only good one. key: the API key to send now.
    """

    def __init__(
        self,
        url: str,
        clients: int,
        prompt: Callable[[int], str],
        answer: Callable[[int], str],
        key: Callable[[], str] = lambda: "none",
        **fields: object,
    ) -> None:
        self.ends: Counter[str] = Counter()
        self.longest_s = 0.0
        self._url, self._clients, self._key, self._fields = url, clients, key, fields
        self._prompt, self._answer = prompt, answer
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SteadyLoad"]:
        """Ask while the context is open, then wait for the last answers."""
        async with asyncio.TaskGroup() as group:
            for client in range(self._clients):
                group.create_task(self._ask_on(client))
            try:
                yield self
            finally:
                self._stopping = True

    async def several(self) -> None:
        """Wait until as many further requests have been answered as there are clients."""
        enough = self.ends.total() + self._clients
        async with asyncio.timeout(LIMIT_S):
            while self.ends.total() < enough:
                await asyncio.sleep(0.02)

    async def _ask_on(self, client: int) -> None:
        number = 100_000 * client
        # One connection to the server or balancer for each client, as browsers and SDKs keep it.
        async with httpx.AsyncClient(base_url=self._url, trust_env=False, timeout=LIMIT_S) as http:
            while not self._stopping:
                begun = asyncio.get_running_loop().time()
                end = await self._ask(http, number, stream=client % 2 == 0)
                self.ends[end] += 1
                if end != "right":
                    await asyncio.sleep(0.2)
                self.longest_s = max(self.longest_s, asyncio.get_running_loop().time() - begun)
                number += 1

    async def _ask(self, http: httpx.AsyncClient, number: int, *, stream: bool) -> str:
        body = {"messages": [{"role": "user", "content": self._prompt(number)}], "stream": stream} | self._fields
        headers = {"Authorization": f"Bearer {self._key()}"}
        try:
            response = await http.post("/v1/chat/completions", json=body, headers=headers)
        except httpx.TransportError as error:
            return type(error).__name__
        if response.status_code != 200:
            return f"{response.status_code} {response.text}"
        text = _streamed(response.text) if stream else response.json()["choices"][0]["message"]["content"]
        return "right" if text == self._answer(number) else f"wrong: {text!r}"


def _streamed(text: str) -> str:
    """The text of a stream's events; how the stream ended if that was not well."""
    *events, done, rest = text.split("\n\n")
    if (done, rest) != ("data: [DONE]", ""):
        return f"cut off: {text[-200:]}"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    if any("error" in chunk for chunk in chunks):
        return f"failed: {text[-300:]}"
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
