# SPDX-License-Identifier: Apache-2.0
"""A fake of a streaming OpenAI server whose answers are one-token chunks; the last message chooses its behaviour."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

PROMPT_TOKENS = 4


class FakeOpenAI:
    """The fake. bodies: of all requests. A message "refuse", "break", "short" or "error" causes just that."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.bodies.append(asked)
        manner, tokens = asked["messages"][-1]["content"], asked["max_tokens"]
        if manner == "refuse":
            return web.Response(status=503, text="come again")
        response = web.StreamResponse()
        await response.prepare(request)
        # As vLLM does; a role is not content.
        await response.write(event({"role": "assistant", "content": ""}))
        for index in range(tokens - (manner == "short")):
            await response.write(event({"content": f"word{index} "}))
        if manner == "error":
            await response.write(b'data: {"error": {"message": "the engine has stopped"}}\n\n')
        if manner != "break":
            usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens - (manner == "short")}
            await response.write(event({}, "length") + b"data: " + json.dumps({"choices": [], "usage": usage}).encode())
            await response.write(b"\n\ndata: [DONE]\n\n")
        return response


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One server-sent event of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


@asynccontextmanager
async def openai_server() -> AsyncIterator[FakeOpenAI]:
    """Run a fake server."""
    fake, app = FakeOpenAI(), web.Application()
    app.router.add_post("/v1/chat/completions", fake.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
