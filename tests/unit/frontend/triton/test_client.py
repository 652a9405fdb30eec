# SPDX-License-Identifier: Apache-2.0
"""Short requests to one model are never cancelled in Triton: before 2.57 it may abort if that meets the answer."""

import asyncio

import pytest

from tests.fakes.fake_triton import FakeTriton
from tests.fakes.frontend_server import WAIT, Serving, serving

TEXT = {"prompt": "a"}


async def arrived(one: Serving, number: int) -> None:
    async with asyncio.timeout(WAIT):
        while len(one.triton.calls) < number:
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_short_request_is_not_cancelled_by_its_deadline_or_its_client(caplog: pytest.LogCaptureFixture) -> None:
    triton = FakeTriton()
    triton.tokenizing_gate = asyncio.Event()
    async with serving(triton) as one:
        late = await one.http.post("/tokenize", json=TEXT, headers={"X-Request-Timeout": "0.2"})
        assert late.status_code == 504
        leaving = asyncio.create_task(one.http.post("/tokenize", json=TEXT))
        await arrived(one, 2)
        leaving.cancel()
        await asyncio.sleep(0.2)
        triton.tokenizing_gate.set()
        assert (await one.http.post("/tokenize", json=TEXT)).json()["count"] == 2
    assert triton.cancelled == [] and len(triton.calls) == 3
    assert "never retrieved" not in caplog.text


@pytest.mark.asyncio
async def test_a_frontend_that_stops_waits_for_short_requests() -> None:
    triton = FakeTriton()
    triton.tokenizing_gate = asyncio.Event()
    async with serving(triton) as one:
        late = await one.http.post("/tokenize", json=TEXT, headers={"X-Request-Timeout": "0.2"})
        assert late.status_code == 504
        asyncio.get_running_loop().call_later(0.3, triton.tokenizing_gate.set)
    assert triton.cancelled == []
