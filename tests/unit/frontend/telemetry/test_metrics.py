# SPDX-License-Identifier: Apache-2.0
"""The frontend's metrics: when each is counted, and processes that report as one."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Histogram

from common.errors import RequestError
from frontend.errors import ClientGone, ShuttingDown, SlowReader
from frontend.telemetry.metrics import CAUSES, cancellation, observe_all
from tests.fakes.fake_triton import Call, FakeTriton, answer_of, finish, reply, silence
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, frontend_processes, serving

IN_FLIGHT, QUEUED = 'triton_chat_in_flight{model="model"}', 'triton_chat_queued{model="model"}'
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving(max_in_flight=1, max_queued=1, queue_timeout=5.0, image_private_hosts=False) as running:
        yield running


def read(text: str) -> dict[str, float]:
    """Return every sample by its name and labels."""
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
    }


class Counting:
    """Changes of samples since it was created: `await counting.change("name{labels}")`."""

    def __init__(self, served: Serving, before: dict[str, float]) -> None:
        self._served = served
        self._before = before

    @classmethod
    async def begin(cls, served: Serving) -> "Counting":
        return cls(served, read((await served.http.get("/metrics")).text))

    async def change(self, *names: str) -> list[float]:
        now = read((await self._served.http.get("/metrics")).text)
        return [now.get(name, 0) - self._before.get(name, 0) for name in names]

    async def until(self, name: str, value: float) -> None:
        async with asyncio.timeout(WAIT):
            while (await self.change(name)) != [value]:
                await asyncio.sleep(0.02)


async def test_an_answer_is_counted_and_timed(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        for text in ("one ", "two ", "three"):
            yield reply(text)
            await asyncio.sleep(0.03)
        yield finish(completion=3, prompt=12, num_cached_tokens=8)

    served.triton.script = script
    counting = await Counting.begin(served)
    await served.chunks()
    assert await counting.change(
        'triton_chat_requests_total{endpoint="chat",model="model",outcome="ok"}',
        'triton_chat_prompt_tokens_total{endpoint="chat",model="model"}',
        'triton_chat_completion_tokens_total{endpoint="chat",model="model"}',
        'triton_chat_cached_tokens_total{endpoint="chat",model="model"}',
        'triton_chat_time_to_first_token_seconds_count{endpoint="chat",model="model"}',
        'triton_chat_inter_token_seconds_count{endpoint="chat",model="model"}',
        'triton_chat_request_seconds_count{endpoint="chat",model="model"}',
        IN_FLIGHT,
    ) == [1, 12, 3, 8, 1, 2, 1, 0]
    first, between, whole = await counting.change(
        'triton_chat_time_to_first_token_seconds_sum{endpoint="chat",model="model"}',
        'triton_chat_inter_token_seconds_sum{endpoint="chat",model="model"}',
        'triton_chat_request_seconds_sum{endpoint="chat",model="model"}',
    )
    # On a busy machine the pieces may come late, each by itself; what the script slept is in the whole.
    assert whole > 0.09
    assert min(first, between) > 0 and first + between < whole


async def test_a_requests_tokens_are_in_the_buckets(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply("x")
        yield finish(completion=3, prompt=12)

    served.triton.script = script
    counting = await Counting.begin(served)
    assert (await served.chat()).status_code == 200
    prompt, generation = (f"triton_chat_request_{kind}_tokens" for kind in ("prompt", "generation"))
    assert await counting.change(f'{prompt}_count{{model="model"}}', f'{prompt}_sum{{model="model"}}') == [1, 12]
    assert await counting.change(f'{generation}_count{{model="model"}}', f'{generation}_sum{{model="model"}}') == [1, 3]
    buckets = [f'{prompt}_bucket{{le="{bound}",model="model"}}' for bound in ("10.0", "20.0", "500000.0", "+Inf")]
    assert await counting.change(*buckets) == [0, 1, 1, 1]


async def test_the_time_in_the_queue_is_counted_also_of_those_who_give_up(served: Serving) -> None:
    served.triton.script = silence
    counting = await Counting.begin(served)
    first = asyncio.create_task(served.chat())
    await counting.until(IN_FLIGHT, 1)
    queued = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Timeout": "0.2"})
    assert queued.status_code == 504
    name = "triton_chat_request_queue_time_seconds"
    count, seconds = await counting.change(f'{name}_count{{model="model"}}', f'{name}_sum{{model="model"}}')
    assert count == 2 and 0.15 < seconds < WAIT
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def cut_off(served: Serving, how: str, **fields: object) -> None:
    """Send a request whose client goes away, or whose deadline passes, with no more to come from the engine."""
    if how == "timeout":
        await served.http.post(CHAT, json=HELLO | fields, headers={"X-Request-Timeout": "0.3"})
        return
    async with served.http.stream("POST", CHAT, json=HELLO | fields) as response:
        text = ""
        async for line in response.aiter_lines():
            text += line
            if "four" in text:
                break


@pytest.mark.parametrize("how", ["timeout", "client_gone"])
@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"logprobs": True}], ids=["one", "two-choices", "logprobs"])
async def test_the_tokens_of_an_answer_that_is_cut_off_are_counted(
    tmp_path: Path, how: str, batches: bool, fields: dict[str, object]
) -> None:
    """One choice has ended before, with 9 tokens; of the others all that came counts, also if its text is held back."""
    keys = tmp_path / "keys"
    keys.write_text(f"alice {hashlib.sha256(b'key-a').hexdigest()}\n")

    async def script(call: Call) -> AsyncIterator:
        if call.id.endswith("-1"):
            yield finish(completion=9, prompt=12)
            return
        entry = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
        for number, text in enumerate(["one ", "two ", "", "four"], 1):
            told: dict[str, object] = {"num_input_tokens": 12} if number == 1 else {}
            if "continuous_usage" in call.parameters:
                told |= {"completion_tokens": number, "reasoning_tokens": 0}
            yield reply(text, **told, **({"logprobs": [entry]} if "logprobs" in fields else {}))
        await call.stopped.wait()
        yield finish("cancelled", completion=4)

    async with serving(api_keys_file=str(keys)) as served:
        served.http.headers["Authorization"] = "Bearer key-a"
        served.triton.batches = batches
        await served.triton.restart()
        served.triton.script = script
        async with asyncio.timeout(WAIT):
            while (await served.http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.02)
        counting = await Counting.begin(served)
        await cut_off(served, how, stream=True, **fields)
        await counting.until(f'triton_chat_cancellations_total{{cause="{how}",model="model"}}', 1)
        tokens = 13 if "n" in fields else 4
        assert await counting.change(
            'triton_chat_completion_tokens_total{endpoint="chat",model="model"}',
            'triton_chat_request_generation_tokens_sum{model="model"}',
            'triton_chat_key_completion_tokens_total{key="alice",model="model"}',
            'triton_chat_key_prompt_tokens_total{key="alice",model="model"}',
        ) == [tokens, tokens, tokens, 12]


async def test_no_series_tells_when_it_was_created(served: Serving) -> None:
    assert (await served.chat()).status_code == 200
    assert "_created" not in (await served.http.get("/metrics")).text


async def test_tokens_are_counted_by_key_and_model(tmp_path: Path) -> None:
    """Keys of the settings, whose positions may change, count as one; whoever has no key counts nowhere."""
    keys = tmp_path / "keys"
    keys.write_text(f"alice {hashlib.sha256(b'key-a').hexdigest()}\n")
    async with serving(api_keys_file=str(keys), api_key=("fixed-1", "fixed-2")) as served:
        counting = await Counting.begin(served)
        for key in ("key-a", "key-a", "fixed-1", "fixed-2", "wrong"):
            body = HELLO | {"model": "org/model:1"}  # an alias, which counts under the first name
            await served.http.post(CHAT, json=body, headers={"Authorization": f"Bearer {key}"})
        assert await counting.change(
            'triton_chat_key_prompt_tokens_total{key="alice",model="model"}',
            'triton_chat_key_completion_tokens_total{key="alice",model="model"}',
            'triton_chat_key_prompt_tokens_total{key="setting:*",model="model"}',
            'triton_chat_key_completion_tokens_total{key="setting:*",model="model"}',
        ) == [10, 4, 10, 4]
        assert not re.search(r'triton_chat_key_\w+{key="(setting:1|wrong)', (await served.http.get("/metrics")).text)
    async with serving() as open_to_all:
        counting = await Counting.begin(open_to_all)
        await open_to_all.chat()
        assert await counting.change('triton_chat_key_prompt_tokens_total{key="",model="model"}') == [0]


async def test_gaps_are_those_of_each_choice(served: Serving) -> None:
    """Two choices of three pieces, alternating: two gaps each, and none between the choices."""
    turns: list[str] = []

    async def script(call: Call) -> AsyncIterator:
        for _ in range(3):
            while turns and turns[-1] == call.id:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.03)
            turns.append(call.id)
            yield reply("x")
        yield finish()

    served.triton.script = script
    counting = await Counting.begin(served)
    await served.chunks(n=2)
    assert len(turns) == 6
    assert await counting.change(
        'triton_chat_inter_token_seconds_count{endpoint="chat",model="model"}',
        'triton_chat_time_to_first_token_seconds_count{endpoint="chat",model="model"}',
    ) == [4, 1]


async def test_refusals_are_counted_by_cause(served: Serving) -> None:
    counting = await Counting.begin(served)
    await served.chat(model="other")
    await served.http.get("/nothing")
    await served.chat(temperature=-1)
    assert await counting.change(
        'triton_chat_rejected_total{cause="model_not_found",model=""}',
        'triton_chat_rejected_total{cause="not_found",model=""}',
        'triton_chat_requests_total{endpoint="chat",model="",outcome="model_not_found"}',
        'triton_chat_requests_total{endpoint="other",model="",outcome="not_found"}',
        'triton_chat_requests_total{endpoint="chat",model="model",outcome="invalid_request"}',
        'triton_chat_requests_total{endpoint="chat",model="model",outcome="ok"}',
    ) == [1, 1, 1, 1, 1, 0]


async def test_queued_and_refused_requests_are_counted(served: Serving) -> None:
    served.triton.script = silence
    counting = await Counting.begin(served)
    tasks = [asyncio.create_task(served.chat()) for _ in range(2)]
    await counting.until(QUEUED, 1)
    assert (await served.chat()).status_code == 503
    assert await counting.change('triton_chat_rejected_total{cause="overloaded",model="model"}', IN_FLIGHT) == [1, 2]
    served.triton.script = answer_of("x")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await counting.until(IN_FLIGHT, 0)
    assert await counting.change(QUEUED, 'triton_chat_cancellations_total{cause="client_gone",model="model"}') == [0, 2]


async def test_a_timeout_is_a_cancellation(served: Serving) -> None:
    served.triton.script = silence
    counting = await Counting.begin(served)
    response = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Timeout": "0.1"})
    assert response.status_code == 504
    assert await counting.change('triton_chat_cancellations_total{cause="timeout",model="model"}') == [1]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ClientGone(), "client_gone"),
        (SlowReader(), "slow_reader"),
        (RequestError("late", kind="timeout"), "timeout"),
        (ShuttingDown(), "shutdown"),
        (asyncio.CancelledError(), "shutdown"),
        (RequestError("the engine died", kind="unavailable"), None),
        (RequestError("wrong"), None),
        (RuntimeError(), None),
        (None, None),
    ],
)
def test_causes(error: BaseException | None, cause: str | None) -> None:
    assert cancellation(error) == cause
    assert cause is None or cause in CAUSES


async def test_images_are_counted(served: Serving) -> None:
    def chat(*urls: str) -> dict:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return {"messages": [{"role": "user", "content": parts}]}

    counting = await Counting.begin(served)
    assert (await served.http.post(CHAT, json=chat(PIXEL, PIXEL))).status_code == 200
    assert (await served.http.post(CHAT, json=chat("http://127.0.0.1/x.png"))).status_code == 400
    assert (await served.http.post(CHAT, json=chat("gopher:x"))).status_code == 400
    assert await counting.change(
        'triton_chat_image_fetches_total{outcome="ok",scheme="data"}',
        'triton_chat_image_bytes_total{scheme="data"}',
        'triton_chat_image_fetch_seconds_count{scheme="data"}',
        'triton_chat_image_fetches_total{outcome="refused",scheme="http"}',
        'triton_chat_image_bytes_total{scheme="http"}',
        'triton_chat_image_fetches_total{outcome="refused",scheme="other"}',
    ) == [2, 46, 2, 1, 0, 1]


async def test_processes_that_share_a_port_report_as_one(tmp_path: Path) -> None:
    triton = FakeTriton()
    await triton.start()
    try:
        flags = ("--max-in-flight", "1")
        async with (
            frontend_processes(triton, 2, tmp_path, *flags) as (one, other),
            httpx.AsyncClient(timeout=WAIT) as http,
        ):
            for url, times in ((one.url, 1), (other.url, 2)):
                for _ in range(times):
                    assert (await http.post(url + CHAT, json=HELLO)).status_code == 200
            reports = [read((await http.get(f"{url}/metrics")).text) for url in (one.url, other.url)]
            name = 'triton_chat_requests_total{endpoint="chat",model="triton-chat",outcome="ok"}'
            in_flight = 'triton_chat_in_flight{model="triton-chat"}'
            assert [report[name] for report in reports] == [3, 3]
            # What a killed process had in flight is in flight no more; what it counted stays.
            triton.script = silence
            asking = [asyncio.create_task(http.post(one.url + CHAT, json=HELLO)) for _ in range(2)]
            waiting = 'vllm:num_requests_waiting{model_name="triton-chat"}'
            async with asyncio.timeout(WAIT):
                while read((await http.get(f"{other.url}/metrics/vllm")).text)[waiting] != 1:
                    await asyncio.sleep(0.02)
            assert read((await http.get(f"{other.url}/metrics")).text)[in_flight] == 2
            (gauges,) = tmp_path.glob(f"gauge_livesum_{one.process.pid}-*.db")
            saved = gauges.read_bytes()
            one.process.kill()
            await one.process.wait()
            for request in asking:
                with pytest.raises(httpx.HTTPError):
                    await request
            left = read((await http.get(f"{other.url}/metrics")).text)
            assert (left[in_flight], left[waiting], left[name]) == (0, 0, 3)
            # Also if its process id has been used again.
            (tmp_path / f"gauge_livesum_{other.process.pid}-1.db").write_bytes(saved)
            assert read((await http.get(f"{other.url}/metrics")).text)[in_flight] == 0
            # Nor does one that was killed at its start, when its files were still empty, keep the others from reporting.
            for kind in ("counter", "histogram", "gauge_livesum"):
                (tmp_path / f"{kind}_{one.process.pid}-1.db").write_bytes(b"")
            for path in ("/metrics", "/metrics/vllm"):
                assert (await http.get(other.url + path)).status_code == 200
    finally:
        await triton.stop()


def test_gaps_counted_together_are_those_counted_one_by_one() -> None:
    gaps = [0.0, 0.001, 0.002, 0.0021, 0.3, 4.9, 5.0, 5.1, 60.0]
    together, one_by_one = (
        Histogram("gaps", "Gaps", buckets=(0.002, 0.005, 5.0), registry=CollectorRegistry()) for _ in range(2)
    )
    observe_all(together, gaps)
    observe_all(together, gaps[:2])
    for gap in (*gaps, *gaps[:2]):
        one_by_one.observe(gap)
    found, expected = (next(iter(one.collect())).samples for one in (together, one_by_one))
    assert [(one.name, one.labels) for one in found] == [(one.name, one.labels) for one in expected]
    assert [one.value for one in found] == pytest.approx([one.value for one in expected])
