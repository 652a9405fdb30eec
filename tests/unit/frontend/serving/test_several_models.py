# SPDX-License-Identifier: Apache-2.0
"""Several models behind one address, as the launcher's state file or Triton's index tells of them."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.model_names import EMBEDDING
from common.models_state import DRAINING, FAILED, LOADING, READY, UNLOADED, ModelState, write_states
from common.served_model import ServedModelInfo
from frontend.triton.discovery import StateFile
from tests.fakes.fake_triton import Call, FakeTriton, Served, answer_of, failure, finish, reply, silence
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

BODIES = {
    CHAT: HELLO,
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [72, 105]},
}


def state(name: str, state: str = READY, steps: str | None = None, **told: Any) -> ModelState:
    """A model's state. told: its reason and retry_after, and fields of its ServedModelInfo."""
    about = {key: told.pop(key) for key in ("reason", "retry_after") if key in told}
    info = ServedModelInfo(**({"names": (name,)} | told))
    engine = f"{steps or name}.{EMBEDDING if info.kind == 'embedding' else 'tensorrt_llm'}"
    return ModelState(state=state, ensemble=name, engine=engine, info=info, **about)


class Pair:
    """A frontend with the models `a` (also called `gpt-4o`) and `b` by a state file."""

    def __init__(self, served: Serving, path: Path) -> None:
        self.served, self.triton, self.http = served, served.triton, served.http
        self.path = path

    async def tell(self, *states: ModelState) -> None:
        """Write the state file and wait until the frontend has read it."""
        models = {one.ensemble: one for one in states}
        write_states(self.path, models)
        catalog = self.served.server.app.state.service.catalog
        await until(lambda: {name: one.state for name, one in catalog.models.items()} == models)

    async def post(self, model: str | None, path: str = CHAT, **fields: Any) -> Any:
        return await self.http.post(path, json=BODIES[path] | fields | ({} if model is None else {"model": model}))


A, B = state("a", names=("a", "gpt-4o"), max_model_len=512, modalities=("text",)), state("b", max_model_len=64)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not true():
            await asyncio.sleep(0.01)


def fake() -> FakeTriton:
    triton = FakeTriton()
    triton.served = {"a": Served("a.", {"names": ["a", "gpt-4o"]}), "b": Served("b.")}
    return triton


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    path = tmp_path / "models.json"
    write_states(path, {"a": A, "b": B})
    async with serving(fake(), models_state=str(path), max_in_flight=1, max_queued=1) as served:
        running = Pair(served, path)
        await running.tell(A, B)
        yield running


async def begun(pair: Pair, script: Any, model: str, **fields: Any) -> "asyncio.Task[Any]":
    """Send a chat that Triton answers with this script, and wait until it has it."""
    pair.triton.script = script
    calls = len(pair.triton.calls)
    task = asyncio.create_task(pair.post(model, **fields))
    await until(lambda: len(pair.triton.calls) > calls)
    return task


class TestChoice:
    async def test_a_model_that_is_loaded_is_served_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two readings of the launcher's file too."""
        monkeypatch.setattr(StateFile, "period", 100 * WAIT)
        path = tmp_path / "models.json"
        write_states(path, {"a": A, "b": state("b", LOADING, max_model_len=64)})
        async with serving(fake(), models_state=str(path)) as served:
            pair = Pair(served, path)
            assert (await pair.post("b")).status_code == 503
            write_states(path, {"a": A, "b": B})
            assert (await pair.post("b")).status_code == 200

    @pytest.mark.parametrize("path", BODIES)
    async def test_the_requests_model_chooses(self, pair: Pair, path: str) -> None:
        for name, triton_name in (("b", "b"), ("a", "a"), ("gpt-4o", "a")):
            answer = await pair.post(name, path)
            assert answer.status_code == 200, answer.text
            step = {"/tokenize": f"{triton_name}.preprocessing", "/detokenize": f"{triton_name}.postprocessing"}
            assert pair.triton.calls[-1].model == step.get(path, triton_name)
            if path.startswith("/v1/"):
                assert answer.json()["model"] == name
            if path == "/tokenize":
                assert answer.json()["max_model_len"] == (64 if name == "b" else 512)

    @pytest.mark.parametrize("path", BODIES)
    async def test_a_request_must_name_one(self, pair: Pair, path: str) -> None:
        for nothing in (None, ""):
            answer = await pair.post(nothing, path)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
            assert "a, b" in answer.json()["error"]["message"]
        answer = await pair.post("c", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "a, gpt-4o, b" in answer.json()["error"]["message"]
        wrong = await pair.http.post(path, json=BODIES[path] | {"model": 5})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "model")

    async def test_each_has_its_own_settings(self, pair: Pair) -> None:
        await pair.tell(A, state("b", trust_request_chat_template=True, request_timeout=0.2, enable_thinking=False))
        assert (await pair.post("a", chat_template="x")).status_code == 400
        assert (await pair.post("b", chat_template="x")).status_code == 200
        assert pair.triton.calls[-1].messages["enable_thinking"] is False
        pair.triton.script = silence
        late = await pair.post("b")
        assert (late.status_code, late.json()["error"]["message"]) == (504, "The request did not finish within 0.2 s")

    async def test_a_model_of_another_kind(self, pair: Pair) -> None:
        await pair.tell(A, state("bge", kind="embedding"))
        answer = await pair.post("bge")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
        assert "makes embeddings" in answer.json()["error"]["message"]

    async def test_the_list_has_each_name(self, pair: Pair) -> None:
        listed = (await pair.http.get("/v1/models")).json()["data"]
        assert [(one["id"], one["root"], one["aliases"], one["max_model_len"]) for one in listed] == [
            ("a", "a", ["gpt-4o"], 512),
            ("gpt-4o", "a", ["a"], 512),
            ("b", "b", [], 64),
        ]
        assert [(one["kind"], one["modalities"]) for one in listed] == [
            ("chat", ["text"]),
            ("chat", ["text"]),
            ("chat", None),
        ]
        assert (await pair.http.get("/v1/models/gpt-4o")).json() == listed[1]
        assert (await pair.http.get("/v1/models/c")).status_code == 404

    async def test_the_list_has_the_order_of_the_file(self, pair: Pair) -> None:
        for states in ((B, A), (state("c"), B, A)):
            await pair.tell(*states)

            async def listed(names: list[str]) -> bool:
                return [one["root"] for one in (await pair.http.get("/v1/models")).json()["data"]] == names

            roots = [name for one in states for name in [one.ensemble] * len(one.info.names)]
            await eventually(partial(listed, roots))

    async def test_the_context_of_a_model_of_embeddings_is_what_its_engine_says(self, pair: Pair) -> None:
        pair.triton.served["bge"] = Served("bge.", {"kind": "embedding"})
        pair.triton.statistics_of["bge.embedding"] = {"running": 0, "max_model_len": 512}
        for told, length in ((None, 512), (64, 64)):
            await pair.tell(A, state("bge", kind="embedding", max_model_len=told))
            for about in (
                (await pair.http.get("/v1/models")).json()["data"][-1],
                (await pair.http.get("/v1/models/bge")).json(),
            ):
                assert (about["id"], about["max_model_len"]) == ("bge", length)


class TestStates:
    @pytest.mark.parametrize(
        ("now", "says"),
        [
            (state("b", LOADING, reason="its engine died", retry_after=7), "is loading: its engine died"),
            (state("b", FAILED, reason="no /secret/path", retry_after=7), "failed to load"),
            (state("b", DRAINING, retry_after=7), "is being unloaded and takes no new requests"),
        ],
        ids=[LOADING, FAILED, DRAINING],
    )
    async def test_a_model_that_is_not_ready(self, pair: Pair, now: ModelState, says: str) -> None:
        await pair.tell(A, now)
        for path in BODIES:
            answer = await pair.post("b", path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
            error = answer.json()["error"]
            assert (error["message"], error["code"]) == (f"The model 'b' {says}", "model_not_ready")
            assert (await pair.post("a", path)).status_code == 200
        assert (await pair.post(None)).status_code == 400, "which one is not known only because one is away"
        assert [one["id"] for one in (await pair.http.get("/v1/models")).json()["data"]] == ["a", "gpt-4o"]
        assert (await pair.http.get("/v1/models/b")).status_code == 503
        await pair.tell(A, B)
        assert (await pair.post("b")).status_code == 200

    async def test_an_unloaded_model_is_unknown(self, pair: Pair) -> None:
        for states in ((A, state("b", UNLOADED)), (A,)):
            await pair.tell(A, B)
            await pair.tell(*states)
            answer = await pair.post("b")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")

    async def test_running_requests_end_with_the_model(self, pair: Pair) -> None:
        """Draining lets them go on; what is loading, failed or unloaded will never answer them."""
        other = await begun(pair, silence, "a")
        for end in (UNLOADED, LOADING, FAILED):
            await pair.tell(A, B)
            running = await begun(pair, silence, "b")
            await pair.tell(A, state("b", DRAINING))
            await asyncio.sleep(0.05)
            assert not running.done()
            await pair.tell(A, state("b", end))
            answer = await running
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            await pair.served.stopped([-1])
            assert pair.triton.stopped_in[-1] == "b.tensorrt_llm"
        assert not other.done()
        other.cancel()

    async def test_before_the_launcher_has_said_anything(self, tmp_path: Path) -> None:
        async with serving(fake(), models_state=str(tmp_path / "none"), max_in_flight=1, max_queued=0) as served:
            for fields in ({}, {"model": "a"}):
                answer = await served.chat(**fields)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
            assert (await served.http.get("/health/ready")).status_code == 503
            assert (await served.http.get("/version")).status_code == 200

    async def test_a_broken_file_changes_nothing(self, pair: Pair) -> None:
        pair.path.write_text("{")
        await asyncio.sleep(0.7)
        assert (await pair.post("b")).status_code == 200
        await pair.tell(A)
        assert (await pair.post("b")).status_code == 404


class TestReload:
    async def test_requests_stay_with_the_steps_that_they_began_on(self, pair: Pair) -> None:
        pair.triton.old_steps = {"b."}
        await pair.tell(A, state("b", max_in_flight=2))
        old = await begun(pair, silence, "b", stream=True)
        pair.triton.served["b"].steps = "b.g2."
        await pair.tell(A, state("b", steps="b.g2", max_in_flight=2))
        pair.triton.script = answer_of("x")
        for path, step in (("/tokenize", "preprocessing"), ("/detokenize", "postprocessing")):
            assert (await pair.post("b", path)).status_code == 200
            assert pair.triton.calls[-1].model == f"b.g2.{step}"
        assert not old.done()
        old.cancel()
        await pair.served.stopped([0])
        assert "b.tensorrt_llm" in pair.triton.stopped_in

    async def test_embeddings_go_to_the_step_that_serves(self, pair: Pair) -> None:
        """Not to the ensemble, through which no cancellation reaches the step."""
        pair.triton.served["bge"] = Served("bge.", {"kind": "embedding"})
        await pair.tell(A, state("bge", kind="embedding", max_in_flight=2))
        body = {"model": "bge", "input": "x"}
        pair.triton.pooling_gate = asyncio.Event()
        calls = len(pair.triton.calls)
        old = asyncio.create_task(pair.http.post("/v1/embeddings", json=body))
        await until(lambda: len(pair.triton.calls) > calls)
        assert pair.triton.calls[-1].model == "bge.embedding"
        await pair.tell(A, state("bge", kind="embedding", steps="bge.g2", max_in_flight=2))
        pair.triton.pooling_gate, gate = None, pair.triton.pooling_gate
        assert (await pair.http.post("/v1/embeddings", json=body)).status_code == 200
        assert pair.triton.calls[-1].model == "bge.g2.embedding" and not old.done()
        gate.set()
        assert (await old).status_code == 200

    async def test_a_dead_step_of_the_old_ones_is_no_fault_of_the_new_ones(self, tmp_path: Path) -> None:
        path = tmp_path / "models.json"
        write_states(path, {"b": B})
        async with serving(fake(), models_state=str(path)) as served:
            pair = Pair(served, path)
            await pair.tell(B)
            old = await begun(pair, silence, "b")
            await pair.tell(state("b", steps="b.g2"))
            pair.triton.served["b"].steps = "b.g2."
            new = await begun(pair, silence, "b")
            pair.triton.lost = "b.tensorrt_llm"
            async with asyncio.timeout(WAIT):
                assert (await old).status_code == 503
            assert not new.done()
            assert (await pair.http.get("/health/ready")).status_code == 200
            new.cancel()


class TestHealth:
    async def test_a_dead_step_fails_its_model_only(self, pair: Pair) -> None:
        async def dies(call: Call) -> AsyncIterator[Any]:
            yield failure(f"in ensemble 'b', Stub process '{call.model}.tensorrt_llm_0_0' is not healthy.")

        other = await begun(pair, silence, "a")
        pair.triton.lost = "b.tensorrt_llm"
        assert (await (await begun(pair, dies, "b"))).status_code == 503
        pair.triton.script = answer_of("x")
        calls = len(pair.triton.calls)
        assert (await pair.post("b")).json()["error"]["code"] == "unavailable"
        assert len(pair.triton.calls) == calls, "it is not sent to Triton"
        assert not other.done()
        other.cancel()
        await until(lambda: not pair.served.server.app.state.service.catalog.models["a"].slots.in_flight)
        assert (await pair.post("a")).status_code == 200
        health = await pair.http.get("/health/ready")
        assert (health.status_code, health.json()["not_ready"]) == (200, ["b.tensorrt_llm"])
        assert health.json()["models"] == {"a": "ready", "b": "not ready"}
        of_b = await pair.http.get("/health/ready", params={"model": "b"})
        assert (of_b.status_code, of_b.json()["models"]) == (503, {"b": "not ready"})
        assert (await pair.http.get("/health", params={"model": "gpt-4o"})).status_code == 200
        assert (await pair.http.get("/health", params={"model": "c"})).status_code == 404
        pair.triton.lost = None

        async def healthy() -> bool:
            return (await pair.http.get("/health/ready", params={"model": "b"})).status_code == 200

        await eventually(healthy)

    async def test_one_model_that_serves_is_enough(self, pair: Pair) -> None:
        await pair.tell(A, state("b", LOADING))
        health = await pair.http.get("/health/ready")
        assert (health.status_code, health.json()["models"]) == (200, {"a": "ready", "b": "loading"})
        await pair.tell(state("a", FAILED), state("b", LOADING))
        health = await pair.http.get("/health/ready")
        assert (health.status_code, health.json()["models"]) == (503, {"a": "failed", "b": "loading"})


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT):
        while not await true():
            await asyncio.sleep(0.05)


class TestLimits:
    async def test_an_overloaded_model_refuses_only_its_own(self, pair: Pair) -> None:
        """Each has one slot and a queue of one."""
        running = [await begun(pair, silence, "b")]
        running.append(asyncio.create_task(pair.post("b")))
        models = pair.served.server.app.state.service.catalog.models
        await until(lambda: models["b"].slots.queued == 1)
        refused = await pair.post("b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        pair.triton.script = answer_of("x")
        assert (await pair.post("a")).status_code == 200
        metrics = (await pair.http.get("/metrics")).text
        for line in ('in_flight{model="b"} 2.0', 'in_flight{model="a"} 0.0', 'queued{model="b"} 1.0'):
            assert f"triton_chat_{line}" in metrics
        assert 'triton_chat_in_flight{model=""} 0.0' in metrics
        for task in running:
            task.cancel()

    async def test_limits_of_its_own(self, pair: Pair) -> None:
        await pair.tell(A, state("b", max_in_flight=2, max_queued=0))
        running = [await begun(pair, silence, "b") for _ in range(2)]
        assert (await pair.post("b")).status_code == 503
        # A change of the limits needs no restart, and does not touch what runs.
        await pair.tell(A, state("b", max_in_flight=3, max_queued=0))
        running.append(await begun(pair, silence, "b"))
        assert (await pair.post("b")).status_code == 503
        for task in running:
            assert not task.done()
            task.cancel()

    async def test_a_shutdown_refuses_all(self, pair: Pair) -> None:
        pair.served.server.app.state.service.admission.drain()
        for model in ("a", "b"):
            assert (await pair.post(model)).json()["error"]["message"] == "The server is shutting down"


async def test_metrics_logs_and_traces_know_the_model(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="frontend.access")

    async def script(call: Call) -> AsyncIterator[Any]:
        yield reply("x")
        yield finish(completion=3, prompt=12)

    pair.triton.script = script
    before = (await pair.http.get("/metrics")).text
    assert (await pair.post("gpt-4o")).status_code == 200
    assert (await pair.post("unheard-of")).status_code == 404
    text = (await pair.http.get("/metrics")).text
    assert "unheard-of" not in text and "gpt-4o" not in text
    for series, change in {
        'requests_total{endpoint="chat",model="a",outcome="ok"}': 1,
        'requests_total{endpoint="chat",model="",outcome="model_not_found"}': 1,
        'prompt_tokens_total{endpoint="chat",model="a"}': 12,
        'completion_tokens_total{endpoint="chat",model="a"}': 3,
        'request_seconds_count{endpoint="chat",model="a"}': 1,
        'requests_total{endpoint="chat",model="b",outcome="ok"}': 0,
    }.items():
        assert value(text, series) - value(before, series) == change, series
    lines = [line.fields for line in caplog.records if line.name == "frontend.access"]
    assert [line["model"] for line in lines if line["endpoint"] == "chat"] == ["gpt-4o", None]


def value(text: str, series: str) -> float:
    found = [line for line in text.splitlines() if line.startswith(f"triton_chat_{series} ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


class TestKeys:
    @pytest.fixture
    async def restricted(self, tmp_path: Path) -> AsyncIterator[Pair]:
        keys, path = tmp_path / "keys", tmp_path / "models.json"
        lines = {"all": "", "only-a": " models=a", "by-alias": " models=gpt-4o,c", "of-none": " models=c"}
        keys.write_text(
            "".join(f"{name} {hashlib.sha256(name.encode()).hexdigest()}{x}\n" for name, x in lines.items())
        )
        write_states(path, {"a": A, "b": B})
        async with serving(fake(), models_state=str(path), api_keys_file=str(keys)) as served:
            yield Pair(served, path)

    @pytest.mark.parametrize("path", BODIES)
    async def test_a_key_for_some_models(self, restricted: Pair, path: str) -> None:
        for key, forbidden in (("all", False), ("only-a", True), ("by-alias", True)):
            restricted.http.headers["authorization"] = f"Bearer {key}"
            assert (await restricted.post("a", path)).status_code == 200
            answer = await restricted.post("b", path)
            if forbidden:
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
                assert "'b'" in answer.json()["error"]["message"]
                assert "b" not in (await restricted.post(None, path)).json()["error"]["message"].partition(":")[2]
            else:
                assert answer.status_code == 200

    async def test_the_list_has_what_it_may_use(self, restricted: Pair) -> None:
        for key, names in (("all", ["a", "gpt-4o", "b"]), ("only-a", ["a", "gpt-4o"])):
            restricted.http.headers["authorization"] = f"Bearer {key}"
            listed = (await restricted.http.get("/v1/models")).json()["data"]
            assert [one["id"] for one in listed] == names
        assert (await restricted.http.get("/v1/models/b")).status_code == 403
        restricted.http.headers["authorization"] = "Bearer of-none"
        assert (await restricted.http.get("/v1/models")).json()["data"] == []
        for name, message in (("d", "served: none"), (None, "several models are served: none now")):
            answer = await restricted.post(name, next(iter(BODIES)))
            assert answer.json()["error"]["message"].endswith(message)


class TestDiscovery:
    """Without a launcher: what Triton's repository holds."""

    @pytest.fixture
    async def served(self) -> AsyncIterator[Serving]:
        async with serving(fake()) as one:
            yield one

    async def test_a_first_request_waits_until_the_models_are_known(self, served: Serving) -> None:
        assert (await served.chat(model="b")).status_code == 200
        assert served.triton.calls[-1].model == "b"
        assert (await served.chat(model="gpt-4o")).json()["model"] == "gpt-4o"
        assert (await served.chat(model="model")).status_code == 404, "the settings' names are for one model alone"

    async def test_models_come_and_go(self, served: Serving) -> None:
        async def status(model: str) -> int:
            return (await served.chat(model=model)).status_code

        assert await status("b") == 200
        served.triton.served["c"] = Served("c.", state="LOADING")
        await eventually(lambda: answers(status, "c", 503))
        served.triton.served["c"].state = "READY"
        await eventually(lambda: answers(status, "c", 200))
        served.triton.served["b"] = Served("b.", state="UNAVAILABLE", reason="unloaded")
        await eventually(lambda: answers(status, "b", 404))
        served.triton.served["b"].reason = "out of memory"
        await eventually(lambda: answers(status, "b", 503))
        del served.triton.served["b"]
        await eventually(lambda: answers(status, "b", 404))
        assert await status("a") == 200

    async def test_others_may_take_the_place_of_the_one_model(self) -> None:
        async with serving() as served:
            await until(lambda: served.server.app.state.service.catalog._known.is_set())
            assert (await served.chat()).status_code == 200
            served.triton.served = {"a": Served("a."), "b": Served("b.")}

            async def listed() -> bool:
                models = (await served.http.get("/v1/models")).json()
                return [one["id"] for one in models.get("data", ())] == ["a", "b"]

            await eventually(listed)
            assert (await served.chat(model="model")).status_code == 404

    async def test_models_of_embeddings(self, served: Serving) -> None:
        """As an ensemble of one step, or without one."""

        async def embeds(model: str, status: int) -> bool:
            answer = await served.http.post("/v1/embeddings", json={"model": model, "input": "x"})
            return answer.status_code == status

        info = {"kind": "embedding"}
        served.triton.served |= {"alone": Served("", info), "bge": Served("bge.", info, state="LOADING")}
        await eventually(partial(embeds, "bge", 503))
        served.triton.served["bge"].state = "READY"
        for name, engine in (("alone", "alone"), ("bge", "bge.embedding")):
            await eventually(partial(embeds, name, 200))
            assert served.triton.calls[-1].model == engine
        models = (await served.http.get("/v1/models")).json()["data"]
        assert [one["root"] for one in models] == ["a", "a", "alone", "b", "bge"], "by their names in Triton"

    async def test_steps_may_change_their_names(self, served: Serving) -> None:
        assert (await served.chat(model="b")).status_code == 200
        served.triton.served["b"].steps = "b.g2."

        async def switched() -> bool:
            await served.http.post("/tokenize", json={"prompt": "x", "model": "b"})
            return served.triton.calls[-1].model == "b.g2.preprocessing"

        await eventually(switched)
        served.triton.script = silence
        calls = len(served.triton.calls)
        asking = asyncio.create_task(served.chat(model="b"))
        await until(lambda: len(served.triton.calls) > calls)
        asking.cancel()
        await served.stopped([-1])
        assert served.triton.stopped_in[-1] == "b.g2.tensorrt_llm"

    @pytest.mark.parametrize(
        "refusal",
        [
            (grpc.StatusCode.UNIMPLEMENTED, ""),
            # As Triton 2.51 writes it.
            (grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-chat-launcher'"),
        ],
    )
    async def test_a_server_that_refuses_the_index_has_one_model(self, refusal: tuple[grpc.StatusCode, str]) -> None:
        triton = FakeTriton()
        triton.refuses_index = refusal
        async with serving(triton) as served:
            assert (await served.chat()).status_code == 200
            assert (await served.chat(model="other")).status_code == 404
            assert served.server.app.state.service.catalog._known.is_set(), "no request waits for it again"
            assert "models" not in (await served.http.get("/health/ready")).json()

    async def test_a_server_that_asks_for_a_key(self) -> None:
        triton = fake()
        triton.refuses_index = (grpc.StatusCode.UNAVAILABLE, "This protocol is restricted")
        async with serving(triton, repository_key=triton.key) as served:
            assert (await served.chat(model="b")).status_code == 200

    async def test_models_that_are_not_ours_are_left_alone(self) -> None:
        triton = fake()
        triton.served["other"] = Served("other.")
        triton.foreign = {"other"}
        async with serving(triton) as served:
            assert (await served.chat(model="b")).status_code == 200
            assert (await served.chat(model="other")).status_code == 404

    async def test_what_an_earlier_process_left_is_stopped_in_each_engine(self) -> None:
        async with serving(fake(), owner="frontend-1") as served:
            await until(lambda: set(served.triton.stopped_in) >= {"a.tensorrt_llm", "b.tensorrt_llm"})
            await until(lambda: len(served.triton.forgotten) == 2)
            assert {one[:2] for one in served.triton.forgotten} == {
                ("a.postprocessing", "frontend-1"),
                ("b.postprocessing", "frontend-1"),
            }
            assert all(float(began) <= time.time() for _, _, began in served.triton.forgotten)
            # In an engine that a reload has loaded are only requests of this process.
            served.triton.served["b"].steps = "b.g2."
            models = served.server.app.state.service.catalog.models
            await until(lambda: models["b"].deployment.engine == "b.g2.tensorrt_llm")
            assert (await served.chat(model="b")).status_code == 200
            assert "b.g2.tensorrt_llm" not in served.triton.stopped_in


async def answers(status: Callable[[str], Awaitable[int]], model: str, wanted: int) -> bool:
    return await status(model) == wanted
