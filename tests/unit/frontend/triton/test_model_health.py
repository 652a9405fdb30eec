# SPDX-License-Identifier: Apache-2.0
"""A model that lost its process: the behaviour of Triton, as observed with 2.51, and what clients receive."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.fake_triton import Call, failure, reply, silence
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

UNHEALTHY = "in ensemble 'ensemble', Stub process '{}_0_0' is not healthy."


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving() as one:
        yield one


async def endless(call: Call) -> AsyncIterator:
    while not call.stopped.is_set():
        yield reply("on and ")
        await asyncio.sleep(0.01)


async def started(served: Serving, script: object, **fields: object) -> "asyncio.Task":
    """Send a request that Triton answers with this script."""
    served.triton.script = script
    calls = len(served.triton.calls)
    task = asyncio.create_task(served.http.post(CHAT, json=HELLO | fields))
    async with asyncio.timeout(WAIT):
        while len(served.triton.calls) == calls:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return task


def dying(model: str) -> object:
    async def script(call: Call) -> AsyncIterator:
        yield failure(UNHEALTHY.format(model))

    return script


@pytest.mark.parametrize("model", ["postprocessing", "tensorrt_llm"])
async def test_requests_inside_a_dead_model_fail_at_once(served: Serving, model: str) -> None:
    silent, streaming = await started(served, silence), await started(served, endless, stream=True)
    async with asyncio.timeout(WAIT):
        first = await (await started(served, dying(model)))
        assert (first.status_code, first.headers["retry-after"]) == (503, "1")
        assert (await silent).json()["error"]["code"] == "unavailable"
        events = (await streaming).text.split("\n\n")
    assert '"code":"unavailable"' in events[-3] and events[-2] == "data: [DONE]"


async def test_requests_past_a_dead_model_continue(served: Serving) -> None:
    served.triton.unready.add("vit")
    silent, streaming = await started(served, silence), await started(served, endless, stream=True)
    async with asyncio.timeout(WAIT):
        await (await started(served, dying("vit")))
        assert (await silent).status_code == 503, "it may be inside the model"
        await served.stopped([0])
    assert not streaming.done()
    assert (await served.chat()).status_code == 503, "not sent to Triton"
    assert len(served.triton.calls) == 3
    streaming.cancel()


async def test_it_serves_again_once_the_model_answers(served: Serving) -> None:
    async with asyncio.timeout(WAIT):
        assert (await (await started(served, dying("postprocessing")))).status_code == 503
        served.triton.script = endless
        assert (await served.http.get("/health/live")).status_code == 200
        while (await served.http.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.05)
        served.reset()
        assert (await served.chat()).status_code == 200


async def test_a_late_error_of_an_old_request_is_ignored(served: Serving) -> None:
    """Triton fails the requests inside a dead process only after the model was reloaded."""
    end = asyncio.Event()

    async def late(call: Call) -> AsyncIterator:
        await end.wait()
        yield failure(UNHEALTHY.format("postprocessing"))

    async with asyncio.timeout(WAIT):
        old = await started(served, late)
        assert (await (await started(served, dying("postprocessing")))).status_code == 503
        assert (await old).status_code == 503
        served.reset()
        while (await served.http.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.05)
        new = await started(served, endless, stream=True)
        end.set()
        await asyncio.sleep(0.1)
        served.reset()
        assert (await served.chat()).status_code == 200
        assert not new.done()
        new.cancel()


async def test_readiness_does_not_trust_triton(served: Serving) -> None:
    served.triton.lost = "preprocessing"
    async with asyncio.timeout(WAIT):
        while (answer := await served.http.get("/health/ready")).status_code == 200:
            await asyncio.sleep(0.05)
    assert answer.json()["not_ready"] == ["preprocessing"]


async def test_overdue_answers_start_probes(served: Serving) -> None:
    """The fake's engine dies without an error for the request inside it."""
    silent = await started(served, silence)
    served.triton.lost = "tensorrt_llm"
    async with asyncio.timeout(WAIT):
        assert (await silent).status_code == 503


async def test_a_triton_that_has_just_started_serves_at_once(served: Serving) -> None:
    """Between two attempts to connect, the channel fails calls; clients must not get these errors."""
    port = served.triton.port
    await served.triton.stop()
    async with asyncio.timeout(WAIT):
        while (await served.chat()).status_code != 503:
            await asyncio.sleep(0.05)
        for _ in range(5):
            await asyncio.sleep(0.3)  # attempts to connect fail by now, so that the next one is half a second away
            await served.triton.start(port)
            assert (await served.chat()).status_code == 200
            assert (await served.http.post("/tokenize", json={"prompt": "Hi"})).status_code == 200
            await served.triton.stop()
        await served.triton.start(port)
