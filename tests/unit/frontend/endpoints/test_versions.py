# SPDX-License-Identifier: Apache-2.0
"""/version and the metric of the same content: what the frontend learns from Triton and the engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from frontend import __version__
from tests.fakes.frontend_server import WAIT, Serving, serving

NOTHING = dict.fromkeys(("engine", "engine_version", "cuda", "gpu", "driver", "triton"))
TOLD = {"engine": "vllm", "engine_version": "0.32.0", "cuda": "12.9", "gpu": "1x NVIDIA H200", "driver": "580.1"}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


async def versions(served: Serving) -> dict[str, Any]:
    """The answer once it names Triton."""
    async with asyncio.timeout(WAIT):
        while (body := (await served.http.get("/version")).json())["triton"] is None:
            await asyncio.sleep(0.02)
    return body


async def test_the_engine_tells_its_versions(served: Serving) -> None:
    served.triton.build_info = TOLD
    assert await versions(served) == {"version": __version__, **TOLD, "triton": "2.51.0"}
    labels = {"version": __version__, **TOLD, "triton": "2.51.0"}
    line = "triton_chat_build_info{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "} 1.0"
    assert line in (await served.http.get("/metrics")).text.splitlines()
    assert served.triton.stops == [], "a request for versions stops nothing"


async def test_an_engine_without_the_output_is_not_asked(served: Serving) -> None:
    served.triton.build_info = None
    assert await versions(served) == NOTHING | {"version": __version__, "triton": "2.51.0"}


async def test_the_cpp_backend_tells_only_its_name(served: Serving) -> None:
    served.triton.engine_backend = "tensorrtllm"
    assert await versions(served) == NOTHING | {
        "version": __version__,
        "engine": "tensorrtllm",
        "triton": "2.51.0",
    }


async def test_without_triton_only_the_frontend_is_known(served: Serving) -> None:
    await versions(served)
    await served.triton.stop()
    async with asyncio.timeout(WAIT):
        while (body := (await served.http.get("/version")).json())["triton"] is not None:
            await asyncio.sleep(0.02)
    assert body == NOTHING | {"version": __version__}
    assert (
        f'engine="",engine_version="",gpu="",triton="",version="{__version__}"}} 1.0'
        in (await served.http.get("/metrics")).text
    )


async def test_another_engine_is_asked_again(served: Serving) -> None:
    served.triton.build_info = {"engine": "vllm", "engine_version": "1"}
    await versions(served)
    served.triton.build_info = {"engine": "vllm", "engine_version": "2"}
    await served.triton.restart()
    async with asyncio.timeout(WAIT):
        while (await versions(served))["engine_version"] != "2":
            await asyncio.sleep(0.02)


async def test_an_engine_that_lost_its_process_does_not_hold_up_the_answer(served: Serving) -> None:
    served.triton.lost = "tensorrt_llm"
    response = await served.http.get("/version")
    assert response.status_code == 200 and response.json() == NOTHING | {"version": __version__}
