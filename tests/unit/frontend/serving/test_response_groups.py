# SPDX-License-Identifier: Apache-2.0
"""Requests in a response group: rows that come out of order, groups per connection, models without batches."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import RequestError
from common.response_batch import AnswerRow
from frontend.triton.tensors import row_size
from tests.fakes.fake_triton import Call, batch, batch_of, finish, reply, together
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"max_in_flight": 10}


async def text_of(served: Serving, **body: Any) -> str:
    response = await served.http.post(CHAT, json=HELLO | {"stream": True} | body)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


async def test_rows_are_put_in_order(served: Serving) -> None:
    async def shuffled(call: Call) -> AsyncIterator[Any]:
        for number in (2, 0, 3):
            yield batch(call.id, number, reply(f"{number} "))
        # The last one, whose response Triton flags as that of the request, before one that is still on its way.
        yield batch(call.id, 4, finish())
        yield batch(call.id, 1, reply("1 "))

    served.triton.script = shuffled
    assert await text_of(served) == "0 1 2 3 "


async def test_a_response_may_hold_rows_of_others(served: Serving) -> None:
    both = asyncio.Barrier(2)

    async def carried(call: Call) -> AsyncIterator[Any]:
        await both.wait()
        for word in call.messages["messages"][0]["content"]:
            yield reply(word)
            await asyncio.sleep(0)
        yield finish()

    served.triton.script = carried
    one = {"messages": [{"role": "user", "content": "abcdefgh"}]}
    other = {"messages": [{"role": "user", "content": "stuvwxyz"}]}
    assert await asyncio.gather(text_of(served, **one), text_of(served, **other)) == ["abcdefgh", "stuvwxyz"]
    assert len({call.group for call in served.triton.calls}) == 1


async def test_one_response_has_rows_of_several_and_what_is_new_in_them_is_ignored(served: Serving) -> None:
    calls: list[Call] = []
    both = asyncio.Barrier(2)

    async def shared(call: Call) -> AsyncIterator[Any]:
        calls.append(call)
        if await both.wait() == 0:
            first, second = calls
            row = AnswerRow(second.id, 1, "fg", {"a_new_field": 1})
            yield together(*(batch(one.id, 0, reply("abcde")) for one in calls), batch_of(row))
            yield batch(first.id, 1, reply("fg"))
        await both.wait()
        yield batch(call.id, 2, finish())

    served.triton.script = shared
    assert await asyncio.gather(text_of(served), text_of(served)) == ["abcdefg", "abcdefg"]


async def test_a_request_whose_row_was_lost_fails(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row was in a response to another request that failed."""
    monkeypatch.setattr("frontend.triton.stream.ROW_PATIENCE", 0.05)

    async def gap(call: Call) -> AsyncIterator[Any]:
        yield batch(call.id, 0, reply("begun"))
        yield batch(call.id, 2, reply("later"))
        await call.stopped.wait()

    served.triton.script = gap
    response = await served.http.post(CHAT, json=HELLO | {"stream": True})
    assert '"content":"begun"' in response.text and "later" not in response.text
    assert "A part of the answer was lost" in response.text
    async with asyncio.timeout(WAIT):
        while not served.triton.stops:
            await asyncio.sleep(0.01)


async def test_a_second_row_that_was_lost_fails_it_too(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last response nothing more comes that would show the gap."""
    monkeypatch.setattr("frontend.triton.stream.ROW_PATIENCE", 0.1)

    async def gaps(call: Call) -> AsyncIterator[Any]:
        for number in (0, 2):
            yield batch(call.id, number, reply(f"{number} "))
        yield batch(call.id, 4, finish())
        yield batch(call.id, 1, reply("1 "))

    served.triton.script = gaps
    async with asyncio.timeout(WAIT):
        response = await served.http.post(CHAT, json=HELLO | {"stream": True})
    assert "A part of the answer was lost" in response.text


async def test_an_error_does_not_overtake_the_rows_before_it(served: Serving) -> None:
    error = RequestError("It broke", kind="unavailable").encode()

    async def failing(call: Call) -> AsyncIterator[Any]:
        # The reader takes all of these at once.
        failed, first = AnswerRow(call.id, 2, "c", {"error": error}), AnswerRow(call.id, 0, "a", None)
        yield batch_of(failed, AnswerRow(call.id, 1, "b", None), first)

    served.triton.script = failing
    response = await served.http.post(CHAT, json=HELLO | {"stream": True})
    assert '"content":"abc"' in response.text
    assert response.text.index("abc") < response.text.index("It broke")
    whole = await served.chat()
    assert whole.status_code == 503 and whole.json()["error"]["message"] == "It broke"


async def test_a_slow_reader_is_measured_by_all_that_waits(served: Serving) -> None:
    plain, reasoned = AnswerRow("r", 0, "x" * 80, None), AnswerRow("r", 0, "", {"reasoning": "x" * 80})
    assert row_size(reasoned) >= row_size(plain) >= 200


async def test_a_new_connection_has_a_group_of_its_own(served: Serving) -> None:
    await text_of(served)
    stream = served.server.app.state.service.triton.stream
    before = stream.connections
    await served.triton.restart()
    async with asyncio.timeout(WAIT):
        while stream.connections == before:
            await asyncio.sleep(0.01)
    await text_of(served)
    first, second = [call.group for call in served.triton.calls]
    assert first and second and first != second


async def test_models_without_batches_get_no_group(served: Serving) -> None:
    served.triton.batches = False
    await served.triton.restart()
    assert await text_of(served) == "Hello world"
    assert [call.group for call in served.triton.calls] == [None]
