# SPDX-License-Identifier: Apache-2.0
"""`store`, `previous_response_id` and `/v1/responses/{id}` with the official client, if the server has a store."""

import asyncio
import copy
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types.responses import Response

from frontend.serving import answer as answering
from frontend.serving.cancel_scope import CancelScope
from tests.fakes.fake_triton import Call, FakeTriton, failure, finish, reply
from tests.fakes.frontend_server import WAIT, Serving, frontend_processes, serving

TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
PATH = "/v1/responses"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(response_store=str(tmp_path / "responses.db"), max_body_bytes=100_000) as one:
        yield one


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return request.param


async def ask(client: openai.AsyncOpenAI, streamed: bool, **fields: Any) -> Any:
    if not streamed:
        return await client.responses.create(model="model", **fields)
    stream = await client.responses.create(model="model", stream=True, **fields)
    return [event async for event in stream][-1].response


async def thinks_and_calls(call: Call) -> AsyncIterator[Any]:
    yield reply(reasoning_output="Look it up.")
    first = {"index": 0, "id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    yield reply(tool_calls=[first])
    yield finish("tool_calls")


async def test_a_dialogue_goes_on(served: Serving, streamed: bool) -> None:
    served.triton.script = thinks_and_calls
    asked = await ask(served.openai, streamed, input="Weather?", instructions="Be long.", tools=[TOOL])
    assert asked.store is True and asked.previous_response_id is None
    served.reset()
    output = {"type": "function_call_output", "call_id": "call_0", "output": "59.0"}
    told = await ask(served.openai, streamed, input=[output], previous_response_id=asked.id, tools=[TOOL])
    assert told.previous_response_id == asked.id
    await ask(served.openai, streamed, input="And now?", previous_response_id=told.id, instructions="Be short.")
    first, last = (call.messages["messages"] for call in served.triton.calls)
    # Instructions are those of the request alone.
    assert [message["role"] for message in first] == ["user", "assistant", "tool"]
    assert first[1]["reasoning_content"] == "Look it up." and first[1]["tool_calls"][0]["id"] == "call_0"
    assert [message["role"] for message in last] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert last[0]["content"] == "Be short." and last[-1]["content"] == "And now?"
    assert last[-2]["content"] == [{"type": "text", "text": "Hello world"}]


async def test_a_stored_response_is_the_one_that_was_sent(served: Serving, streamed: bool) -> None:
    answer = await ask(served.openai, streamed, input="Hi", metadata={"a": "b"})
    stored = await served.openai.responses.retrieve(answer.id)
    assert isinstance(stored, Response) and stored.to_dict() == answer.to_dict()


async def test_what_was_cut_is_stored_too(served: Serving, streamed: bool) -> None:
    async def cut(call: Call) -> AsyncIterator[Any]:
        yield reply("Hel")
        yield finish("length", completion=1)

    served.triton.script = cut
    answer = await ask(served.openai, streamed, input="Hi")
    stored = await served.openai.responses.retrieve(answer.id)
    assert (stored.status, stored.output_text) == ("incomplete", "Hel")


async def test_items_of_the_input(served: Serving) -> None:
    one = await ask(served.openai, False, input="One")
    turns = [
        {"role": "assistant", "content": "Aha"},
        {"role": "user", "content": [{"type": "input_text", "text": "2"}]},
    ]
    two = await ask(served.openai, False, input=turns, previous_response_id=one.id)
    items = [item async for item in served.openai.responses.input_items.list(two.id, order="asc", limit=2)]
    assert [(item.role, item.content[0].type, item.content[0].text) for item in items] == [
        ("user", "input_text", "One"),
        ("assistant", "output_text", "Hello world"),
        ("assistant", "output_text", "Aha"),
        ("user", "input_text", "2"),
    ]
    assert len({item.id for item in items}) == 4
    page = await served.openai.responses.input_items.list(two.id, limit=3)
    assert [item.id for item in page.data] == [item.id for item in items[:0:-1]] and page.has_more
    rest = await served.openai.responses.input_items.list(two.id, after=page.data[-1].id)
    assert [item.id for item in rest.data] == [items[0].id] and not rest.has_more


async def test_ids_of_items_are_texts_that_occur_once(served: Serving) -> None:
    given = [{"id": one, "role": "user", "content": "Hi"} for one in ("m", "m", 7, {"a": 1}, "n")]
    one = await ask(served.openai, False, input=given)
    two = await ask(served.openai, False, input=[{"id": "m", **given[0]}], previous_response_id=one.id)
    for order in ("asc", "desc"):
        items = []
        async with asyncio.timeout(WAIT):
            async for item in served.openai.responses.input_items.list(two.id, order=order, limit=1):
                items.append(item.id)
                assert len(items) <= 7
        assert len(items) == len(set(items)) == 7 and all(isinstance(one, str) for one in items)
        assert {"m", "n"} < set(items)


async def test_items_are_listed_without_reading_them_again(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await ask(served.openai, False, input=[{"role": "user", "content": "Hi", "mine": {"a": [1, 2]}}])

    def refuse(text: Any) -> Any:
        raise AssertionError("a dialogue is parsed")

    with monkeypatch.context() as patched:
        patched.setattr(orjson, "loads", refuse)
        response = await served.http.get(f"{PATH}/{answer.id}/input_items")
    assert response.status_code == 200 and response.json()["data"][0]["mine"] == {"a": [1, 2]}


async def test_reading_counts_for_the_quota_of_the_key(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"api_key": ("sk-ann",), "api_key_rate": 1, "api_key_burst": 3}
    async with serving(response_store=str(tmp_path / "responses.db"), **settings) as served:
        headers = {"Authorization": "Bearer sk-ann"}
        got = [await served.http.get(f"{PATH}/x{path}", headers=headers) for path in ("", "/input_items", "", "")]
    assert [one.status_code for one in got] == [404, 404, 404, 429]


@pytest.mark.parametrize(
    "asked",
    [
        *({"limit": limit} for limit in ("0", "101", "x", "1" * 5000, "0010000", "-1")),
        {"order": "up"},
        {"after": "no"},
    ],
)
async def test_pages_that_do_not_exist(served: Serving, asked: dict[str, str]) -> None:
    answer = await ask(served.openai, False, input="Hi")
    response = await served.http.get(f"{PATH}/{answer.id}/input_items", params=asked)
    assert (response.status_code, response.json()["error"]["param"]) == (400, next(iter(asked)))


async def test_deleting(served: Serving) -> None:
    answer = await ask(served.openai, False, input="Hi")
    after = await ask(served.openai, False, input="Hi", previous_response_id=answer.id)
    assert (await served.http.delete(f"{PATH}/{answer.id}")).json() == {
        "id": answer.id,
        "object": "response",
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError):
        await served.openai.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        await served.openai.responses.retrieve(answer.id)
    for missing in (answer.id, after.id):
        with pytest.raises(openai.NotFoundError):
            await served.openai.responses.input_items.list(missing)
    assert (await served.openai.responses.retrieve(after.id)).id == after.id
    # Without its beginning, a dialogue would be another one.
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(served.openai, False, input="Hi", previous_response_id=after.id)
    assert caught.value.param == "previous_response_id"


async def test_store_false(served: Serving, streamed: bool) -> None:
    kept = await ask(served.openai, streamed, input="Hi")
    # It may continue what is stored.
    answer = await ask(served.openai, streamed, input="Ho", store=False, previous_response_id=kept.id)
    assert answer.store is False and len(served.triton.calls[1].messages["messages"]) == 3
    with pytest.raises(openai.NotFoundError):
        await served.openai.responses.retrieve(answer.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp-unknown"}, "previous_response_id"),
        *(({"previous_response_id": one}, "previous_response_id") for one in (5, "", [], {}, False)),
        ({"store": 1}, "store"),
        ({"store": "yes"}, "store"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True}, "background"),
    ],
)
async def test_refused(served: Serving, fields: dict[str, Any], param: str) -> None:
    response = await served.http.post(PATH, json={"input": "Hi"} | fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("previous", ["", [], {}, False])
async def test_an_error_does_not_tell_to_open_the_store_that_is_open(served: Serving, previous: Any) -> None:
    response = await served.http.post(PATH, json={"input": "Hi", "previous_response_id": previous})
    assert "--response-store" not in response.text


async def test_a_response_without_items_is_continued(served: Serving) -> None:
    async def silent(call: Call) -> AsyncIterator[Any]:
        yield finish("stop", completion=1)

    served.triton.script = silent
    empty = await ask(served.openai, False, input=[], instructions="Say nothing.")
    assert empty.output == [] and empty.store is True
    after = await ask(served.openai, False, input="Hi", previous_response_id=empty.id)
    assert after.previous_response_id == empty.id


async def test_what_a_response_repeats_is_no_part_of_the_dialogue(served: Serving) -> None:
    answer = await ask(served.openai, False, input="Hi", instructions="x" * 60_000)
    for _ in range(3):
        answer = await ask(served.openai, False, input="Hi", instructions="x" * 60_000, previous_response_id=answer.id)
    assert len((await served.openai.responses.retrieve(answer.id)).instructions) == 60_000


async def test_positions_in_errors_are_those_of_the_clients_input(served: Serving) -> None:
    answer = await ask(served.openai, False, input=[{"role": "user", "content": str(at)} for at in range(5)])
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(served.openai, False, input=[{"role": "nobody", "content": "x"}], previous_response_id=answer.id)
    assert caught.value.param == "input[0].role"


async def test_a_dialogue_that_has_become_too_large(served: Serving) -> None:
    answer = await ask(served.openai, False, input="x" * 60_000)
    answer = await ask(served.openai, False, input="x" * 60_000, previous_response_id=answer.id)
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(served.openai, False, input="x", previous_response_id=answer.id)
    assert caught.value.param == "previous_response_id"


async def test_a_stored_response_is_not_streamed(served: Serving) -> None:
    answer = await ask(served.openai, False, input="Hi")
    response = await served.http.get(f"{PATH}/{answer.id}", params={"stream": "true"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")


async def test_what_fails_is_not_stored(served: Serving) -> None:
    async def failing(call: Call) -> AsyncIterator[Any]:
        yield reply("Hel")
        yield failure("the engine died")

    served.triton.script = failing
    events = []
    with pytest.raises(openai.APIError):
        async for event in await served.openai.responses.create(model="model", input="Hi", stream=True):
            events.append(event)
    assert events[0].response.store is True
    with pytest.raises(openai.NotFoundError):
        await served.openai.responses.retrieve(events[0].response.id)


async def test_an_answer_whose_client_left_is_not_stored(served: Serving) -> None:
    async def endless(call: Call) -> AsyncIterator[Any]:
        while True:
            yield reply("on and ")
            await asyncio.sleep(0.01)

    served.triton.script = endless
    stream = await served.openai.responses.create(model="model", input="Hi", stream=True)
    first = await anext(aiter(stream))
    await stream.close()
    await served.stopped()
    with pytest.raises(openai.NotFoundError):
        await served.openai.responses.retrieve(first.response.id)


async def test_a_response_that_cannot_be_stored_says_so(served: Serving, streamed: bool) -> None:
    served.server.app.state.response_store._writer.execute("PRAGMA max_page_count = 1")
    answer = await ask(served.openai, streamed, input="x" * 50_000)
    assert answer.output_text == "Hello world" and answer.store is False


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection to the store, which can lock it."""
    with closing(sqlite3.connect(tmp_path / "responses.db", isolation_level=None)) as other:
        yield other


async def test_a_locked_store_keeps_neither_text_nor_slot(
    served: Serving, lock: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 600.0)
    lock.execute("BEGIN IMMEDIATE")
    stream = await served.openai.responses.create(model="model", input="Hi", stream=True)
    text = ""
    async with asyncio.timeout(WAIT):
        async for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
            if event.type == "response.output_item.done":
                break
        while served.server.app.state.service.catalog.alone.slots.in_flight:
            await asyncio.sleep(0.01)
        assert text == "Hello world"
        lock.execute("ROLLBACK")
        (end,) = [event async for event in stream]
    assert end.type == "response.completed" and end.response.store is True


async def test_an_answer_waits_for_the_store_until_its_deadline_at_most(
    served: Serving, lock: sqlite3.Connection, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 600.0)
    monkeypatch.setattr(CancelScope, "remaining", 0.01)
    lock.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(WAIT):
        answers = await asyncio.gather(*(ask(served.openai, streamed, input="Hi") for _ in range(10)))
    assert [(one.output_text, one.store) for one in answers] == [("Hello world", False)] * 10


async def test_keys_do_not_see_each_others_responses(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"response_store": str(tmp_path / "responses.db")}
    async with serving(api_key=("sk-ann", "sk-bob"), **settings) as served:
        ann, bob = (served.openai.with_options(api_key=key) for key in ("sk-ann", "sk-bob"))
        answer = await ask(ann, False, input="Hi")
        for attempt in (bob.responses.retrieve, bob.responses.delete, bob.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                await attempt(answer.id)
        with pytest.raises(openai.BadRequestError):
            await ask(bob, False, input="Hi", previous_response_id=answer.id)
        assert (await ann.responses.retrieve(answer.id)).id == answer.id
    # Neither after a restart that gives the key another number.
    async with serving(api_key=("sk-bob", "sk-ann"), **settings) as served:
        ann, bob = (served.openai.with_options(api_key=key) for key in ("sk-ann", "sk-bob"))
        with pytest.raises(openai.NotFoundError):
            await bob.responses.retrieve(answer.id)
        assert (await ann.responses.retrieve(answer.id)).id == answer.id


async def test_a_page_of_another_origin_cannot_delete(served: Serving) -> None:
    answer = await ask(served.openai, False, input="Hi")
    response = await served.http.delete(f"{PATH}/{answer.id}", headers={"Origin": "http://evil.example"})
    assert response.status_code == 403
    assert (await served.openai.responses.retrieve(answer.id)).id == answer.id


async def test_two_frontends_share_the_store(tmp_path: Path) -> None:
    triton = FakeTriton()
    await triton.start()
    flags = ("--response-store", str(tmp_path / "responses.db"), "--served-model-name", "model")
    try:
        async with frontend_processes(triton, 2, tmp_path, *flags) as processes:
            clients = [httpx.AsyncClient(base_url=one.url, timeout=WAIT) for one in processes]
            answer: dict[str, Any] = {"id": None}
            for turn in range(6):
                body = {"input": str(turn), "previous_response_id": answer["id"]}
                response = await clients[turn % 2].post(PATH, json=body)
                assert response.status_code == 200, response.text
                answer = response.json()
            assert (await clients[0].get(f"{PATH}/{answer['id']}")).json() == answer
            for client in clients:
                await client.aclose()
    finally:
        await triton.stop()
    said = [message["content"] for message in triton.calls[-1].messages["messages"] if message["role"] == "user"]
    assert [one if isinstance(one, str) else one[0]["text"] for one in said] == [str(turn) for turn in range(6)]


async def test_without_a_store() -> None:
    async with serving() as served:
        answer = await ask(served.openai, False, input="Hi", store=True)
        assert answer.store is False
        refused = await served.http.post(PATH, json={"input": "Hi", "store": 1})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "store")
        for method in ("GET", "DELETE"):
            assert (await served.http.request(method, f"{PATH}/{answer.id}")).status_code == 404
        body = {"input": "Hi", "previous_response_id": answer.id}
        error = (await served.http.post(PATH, json=copy.deepcopy(body))).json()["error"]
        assert error["param"] == "previous_response_id" and "--response-store" in error["message"]
