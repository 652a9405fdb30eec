# SPDX-License-Identifier: Apache-2.0
"""Requests with pictures, each a different one, so that no cache answers for the work."""

import asyncio
import base64
import io

import aiohttp
import numpy as np
from PIL import Image

# Height and width; one block of colours each, so that a picture is made in well under a millisecond.
_SIZE, _BLOCK = (96, 128), 16


def picture(number: int) -> str:
    """The data URL of a JPEG file; a different one for each number."""
    blocks = np.random.default_rng(number).integers(0, 256, (_SIZE[0] // _BLOCK, _SIZE[1] // _BLOCK, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)).save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


async def ask(url: str, model: str, first: int, count: int, concurrency: int) -> None:
    """Ask for one token about each of the pictures from number `first`; raises RuntimeError if one is refused."""
    numbers = iter(range(first, first + count))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:

        async def client() -> None:
            for number in numbers:
                parts = [
                    {"type": "image_url", "image_url": {"url": picture(number)}},
                    {"type": "text", "text": "What?"},
                ]
                body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    if response.status != 200:
                        raise RuntimeError(f"{response.status}: {await response.text()}")
                    await response.read()

        await asyncio.gather(*[client() for _ in range(concurrency)])
