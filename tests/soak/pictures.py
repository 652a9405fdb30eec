# SPDX-License-Identifier: Apache-2.0
"""Requests with pictures: most are different ones, so that no cache answers for the work, some are asked about twice,
and some clients disconnect.
"""

import asyncio
import base64
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

# Height and width; one block of colours each, so that a picture is made in well under a millisecond.
_SIZE, _BLOCK = (96, 128), 16
# Heights and widths. The features of the first two of a Qwen-VL take Triton's way, of the others shared memory.
SIZES = (_SIZE, (64, 288), (320, 160), (320, 320), (448, 448))
# Of 16 requests, those that ask about the picture of an earlier one, and those whose clients disconnect.
_EVERY, _AGAIN, _CANCELLED = 16, (5, 11), (7, 15)
_BACK = 40
_MAX_WAIT_S = 0.3


def picture(number: int, size: tuple[int, int] = _SIZE) -> str:
    """The data URL of a JPEG file; a different one for each number. size: height and width."""
    blocks = np.random.default_rng(number).integers(0, 256, (size[0] // _BLOCK, size[1] // _BLOCK, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)).save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def allow_pixels(checkpoint: Path, pixels: int) -> None:
    """Let the processor of a checkpoint whose pictures are bounded by their pixels leave so many in a picture."""
    file = checkpoint / "preprocessor_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    size = config.get("size")
    if isinstance(size, dict) and "longest_edge" in size:
        size["longest_edge"] = pixels
        file.write_text(json.dumps(config), encoding="utf-8")


async def ask(url: str, model: str, first: int, count: int, concurrency: int) -> Counter[str]:
    """Ask for one token about each of the pictures from number `first`; raises RuntimeError if one is refused.

    Returns the numbers of answers, of those about an equal picture, and of requests whose client has disconnected.
    """
    numbers, ends = iter(range(first, first + count)), Counter[str]()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:

        async def client() -> None:
            for number in numbers:
                asked = _body(number) | {"model": model}
                request = asyncio.create_task(_answer(session, url, asked))
                if number % _EVERY in _CANCELLED:
                    # Closes its connection: before the picture is read, in its processor, in the engine, or too late.
                    wait = random.Random(number).uniform(0, _MAX_WAIT_S)  # nosec B311 # no secret is drawn
                    done, _ = await asyncio.wait([request], timeout=wait)
                    if not done:
                        request.cancel()
                        await asyncio.wait([request])
                        ends["cancelled"] += 1
                        continue
                await request
                ends["equal" if number % _EVERY in _AGAIN else "answered"] += 1

        await asyncio.gather(*[client() for _ in range(concurrency)])
    return ends


def _body(number: int) -> dict[str, Any]:
    shown = max(0, number - _BACK) if number % _EVERY in _AGAIN else number
    url = picture(shown, SIZES[shown % len(SIZES)])
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    # Those that are cancelled could go on.
    tokens = 64 if number % _EVERY in _CANCELLED else 1
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": tokens, "ignore_eos": True}


async def _answer(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {await response.text()}")
        await response.read()
