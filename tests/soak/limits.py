# SPDX-License-Identifier: Apache-2.0
"""Many clients at once at the limits of prompts and pictures, and the most memory that each process then has."""

import asyncio
import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from PIL import Image

from scripts.launcher import Stack
from tests.soak.gauges import process_name
from tests.soak.pictures import picture

_LIMIT_S = 600.0
Body = Callable[[int], Mapping[str, Any]]


def bodies(tokens: int, pixels: int, pictures: int) -> dict[str, Body]:
    """Return what is sent, by what it is the limit of. A function makes a body that differs by its number.

    tokens: of a text. pixels: of one large picture. pictures: how many small ones there are in one request.
    """
    return {
        "prompts": lambda number: _body([_text(f"{number} " + "a " * (tokens // 2))]),
        "one large picture": lambda number: _body([_image(_large(number, pixels)), _text("What?")]),
        "many pictures": lambda number: _body(
            [*(_image(picture(number * pictures + one)) for one in range(pictures)), _text("What?")]
        ),
    }


def _body(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 1}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _large(number: int, pixels: int) -> str:
    """The data URL of a square picture of one colour, which is a small file."""
    side = int(pixels**0.5)
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, 100, 50)).save(file, "JPEG", quality=30)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


async def ask_at_once(url: str, model: str, body: Body, clients: int) -> Counter[str]:
    """Send one request of each client, all at once; returns the answers by status and code."""
    answers: Counter[str] = Counter()
    # Before any connection is made: it takes seconds, and a server does not wait so long for a body.
    made = [json.dumps({"model": model, **body(number)}).encode() for number in range(clients)]
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LIMIT_S)) as session:

        async def client(data: bytes) -> None:
            async with session.post(f"{url}/v1/chat/completions", data=data, headers=headers) as response:
                read = await response.json()
                answers[f"{response.status} {read.get('error', {}).get('code', '')}".strip()] += 1

        await asyncio.gather(*map(client, made))
    return answers


def reset_peaks(stack: Stack) -> None:
    """Let the kernel count the peak of resident memory of each process from now on."""
    for process, _ in _processes(stack):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peaks(stack: Stack) -> dict[str, float]:
    """Return the most resident memory that each process had, MiB by role; of several processes, the largest one's."""
    found: dict[str, float] = {}
    for process, name in _processes(stack):
        status = Path(f"/proc/{process.pid}/status").read_text()
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        found[name] = max(found.get(name, 0.0), kib / 2**10)
    return found


def _processes(stack: Stack) -> Iterator[tuple[psutil.Process, str]]:
    for part in stack.parts:
        parent = psutil.Process(part.pid)
        yield parent, part.name
        for child in parent.children(recursive=True):
            yield child, process_name(child)
