# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters: each is a model with a parent, requests choose it by name, and the admin loads and unloads them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import RequestError
from frontend.auth.keys import digest
from frontend.triton import adapters
from tests.fakes.fake_triton import Call, Served, failure, finish
from tests.fakes.frontend_server import HELLO, WAIT, Serving, serving

ADMIN = {"Authorization": "Bearer boss"}
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
POET = {"lora_name": "poet", "lora_path": "/adapters/poet"}


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    """A frontend whose engine has the adapter `sql`. The table of adapters is never fresh, so changes are seen at once."""
    monkeypatch.setattr(adapters, "PERIOD", 0.0)
    async with serving(admin_key="boss") as running:
        running.triton.adapters = [{"name": "sql", "id": 7, "path": "/adapters/sql"}]
        yield running


async def models(served: Serving, **headers: str) -> dict[str, Any]:
    return {one["id"]: one for one in (await served.http.get("/v1/models", headers=headers)).json()["data"]}


async def test_an_adapter_is_a_model_with_a_parent(served: Serving) -> None:
    listed = await models(served)
    assert list(listed) == ["model", "org/model:1", "sql"]
    assert listed["model"]["parent"] is None
    sql = listed["sql"]
    assert (sql["parent"], sql["root"], sql["lora_task_id"]) == ("model", "sql", 7)
    assert sql["max_model_len"] == listed["model"]["max_model_len"]
    assert (await served.http.get("/v1/models/sql")).json() == sql
    assert (await served.http.get("/v1/models/other")).status_code == 404
    assert [model.id for model in (await served.openai.models.list()).data] == list(listed)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", HELLO | {"n": 2}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/messages", HELLO | {"max_tokens": 9}),
    ],
)
async def test_requests_choose_it_by_its_name(served: Serving, path: str, body: dict[str, Any]) -> None:
    answer = await served.http.post(path, json=body | {"model": "sql"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "sql"
    assert {tuple(call.inputs["lora_task_id"]) for call in served.triton.calls} == {(7,)}
    served.triton.calls.clear()
    await served.http.post(path, json=body | {"model": "model"})
    assert all("lora_task_id" not in call.inputs for call in served.triton.calls)
    metrics = (await served.http.get("/metrics")).text
    assert 'triton_chat_requests_total{endpoint="' in metrics and 'model="sql"' in metrics


async def test_tokenizing_takes_the_name_of_an_adapter(served: Serving) -> None:
    answer = await served.http.post("/tokenize", json={"model": "sql", "prompt": "Hi"})
    assert answer.json()["count"] == 3


async def test_an_adapter_of_another_process_is_seen_and_so_is_its_end(served: Serving) -> None:
    assert (await served.chat(model="poet")).status_code == 404
    served.triton.adapters = [{"name": "poet", "id": 8}]
    assert (await served.chat(model="poet")).status_code == 200
    assert (await served.chat(model="sql")).status_code == 404


async def test_the_engine_is_asked_once_within_the_period(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "PERIOD", 60.0)
    assert (await served.chat(model="sql")).status_code == 200
    served.triton.adapters = []
    assert (await served.chat(model="sql")).status_code == 200
    served.triton.adapters = [{"name": "poet", "id": 8}]
    await served.triton.restart()
    async with asyncio.timeout(WAIT):
        while (await served.chat(model="poet")).status_code != 200:
            await asyncio.sleep(0.02)
    assert (await served.chat(model="sql")).status_code == 404


async def test_an_engine_without_adapters_is_not_asked(served: Serving) -> None:
    served.triton.adapters = None
    assert list(await models(served)) == ["model", "org/model:1"]
    assert (await served.chat(model="sql")).status_code == 404
    refused = await served.http.post(LOAD, json=POET, headers=ADMIN)
    assert refused.status_code == 400 and "cannot change" in refused.text


async def test_the_admin_loads_and_unloads(served: Serving) -> None:
    loaded = await served.http.post(LOAD, json=POET | {"load_inplace": True}, headers=ADMIN)
    assert loaded.status_code == 200 and loaded.text == "Success: LoRA adapter 'poet' added successfully."
    (change,) = served.triton.adapter_changes
    assert (change["load_adapter"], change["adapter_path"]) == ("poet", "/adapters/poet")
    assert change["replace_adapter"] is True
    assert (await served.chat(model="poet")).json()["model"] == "poet"
    unloaded = await served.http.post(UNLOAD, json={"lora_name": "sql"}, headers=ADMIN)
    assert unloaded.status_code == 200
    assert list(await models(served)) == ["model", "org/model:1", "poet"]


async def test_the_engines_refusal_is_the_answer(served: Serving) -> None:
    error = RequestError("The rank is too large", param="lora_path")
    served.triton.adapter_error = f"in model 'tensorrt_llm': {error.encode()}"
    refused = await served.http.post(LOAD, json=POET, headers=ADMIN)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "The rank is too large"
    missing = RequestError("There is no adapter 'x'", kind="not_found", param="lora_name")
    served.triton.adapter_error = missing.encode()
    assert (await served.http.post(UNLOAD, json={"lora_name": "x"}, headers=ADMIN)).status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"lora_name": "poet"}, "lora_path"),
        ({"lora_path": "/a"}, "lora_name"),
        (POET | {"lora_name": ""}, "lora_name"),
        (POET | {"lora_name": "model"}, "lora_name"),
        (POET | {"base_model_name": "other"}, "base_model_name"),
    ],
)
async def test_a_wrong_body_is_refused(served: Serving, body: dict[str, Any], param: str) -> None:
    refused = await served.http.post(LOAD, json=body, headers=ADMIN)
    assert refused.status_code in (400, 404) and refused.json()["error"]["param"] == param
    assert served.triton.adapter_changes == []


async def test_only_the_admin_may_change_adapters(served: Serving) -> None:
    for path in (LOAD, UNLOAD):
        assert (await served.http.post(path, json=POET)).status_code == 401
        assert (await served.http.post(path, json=POET, headers={"Authorization": "Bearer x"})).status_code == 403
    async with serving() as without:
        assert (await without.http.post(LOAD, json=POET, headers=ADMIN)).status_code == 404
    assert served.triton.adapter_changes == []


async def test_a_key_may_be_for_an_adapter_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(
        f"a {digest('ka').hex()} models=sql\nb {digest('kb').hex()} models=model\nc {digest('kc').hex()} models=poet\n"
    )
    async with serving(api_keys_file=str(keys)) as served:
        served.triton.adapters = [{"name": "sql", "id": 7}]

        async def status(key: str, model: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return (
                await served.http.post("/v1/chat/completions", json=HELLO | {"model": model}, headers=headers)
            ).status_code

        found = {key: [await status(key, "sql"), await status(key, "model")] for key in ("ka", "kb", "kc")}
        assert found == {"ka": [200, 403], "kb": [200, 200], "kc": [403, 403]}
        assert list(await models(served, Authorization="Bearer ka")) == ["sql"]


async def test_of_several_models_the_base_is_named() -> None:
    async with serving(admin_key="boss") as served:
        served.triton.served = {"qwen3": Served("qwen3."), "gemma": Served("gemma.")}
        served.triton.served["bge"] = Served("bge.", {"kind": "embedding"})
        served.triton.adapters = []
        async with asyncio.timeout(WAIT):
            while list(await models(served)) != ["bge", "gemma", "qwen3"]:
                await asyncio.sleep(0.05)
        refused = await served.http.post(LOAD, json=POET, headers=ADMIN)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "base_model_name"
        assert (
            await served.http.post(LOAD, json=POET | {"base_model_name": "gemma"}, headers=ADMIN)
        ).status_code == 200
        refused = await served.http.post(LOAD, json=POET | {"base_model_name": "qwen3"}, headers=ADMIN)
        assert refused.status_code == 400 and "is an adapter of 'gemma'" in refused.json()["error"]["message"]
        # Its name is enough to unload it.
        assert (await served.http.post(UNLOAD, json={"lora_name": "x"}, headers=ADMIN)).status_code == 404
        assert (await served.http.post(UNLOAD, json={"lora_name": "poet"}, headers=ADMIN)).status_code == 200
        assert list(await models(served)) == ["bge", "gemma", "qwen3"]
        for path in (LOAD, UNLOAD):
            refused = await served.http.post(path, json=POET | {"base_model_name": "bge"}, headers=ADMIN)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "base_model_name")
            assert "has no adapters" in refused.json()["error"]["message"]


DROPPED = "LoRA task 7 not found in cache. Please send LoRA weights with request"
NOT_CACHED = f"in ensemble 'ensemble', Executor failed process requestId 3 due to the following error: {DROPPED}"


async def test_the_cpp_backend_gets_weights_first_and_again_when_it_has_dropped_them(served: Serving) -> None:
    served.triton.engine_backend = "tensorrtllm"
    cached: set[int] = set()

    async def script(call: Call) -> AsyncIterator[Any]:
        (adapter,) = call.inputs["lora_task_id"]
        if call.parameters.get("send_adapter"):
            cached.add(adapter)
        yield finish(text="ok") if adapter in cached else failure(NOT_CACHED)

    served.triton.script = script
    sent = []
    for _ in range(2):
        for _ in range(2):
            served.triton.calls.clear()
            assert (await served.chat(model="sql")).json()["choices"][0]["message"]["content"] == "ok"
            sent.append([bool(call.parameters.get("send_adapter")) for call in ensemble_calls(served)])
        cached.clear()
    assert sent == [[True], [False], [False, True], [False]]
    cached.clear()
    chunks = await served.chunks(model="sql", n=2)
    assert {chunk["choices"][0]["index"] for chunk in chunks} == {0, 1}
    # A cache that drops it at once is not asked a third time.
    served.triton.calls.clear()
    served.triton.script = refuse
    assert (await served.chat(model="sql")).status_code == 503
    assert len(ensemble_calls(served)) == 2


def ensemble_calls(served: Serving) -> list[Call]:
    return [call for call in served.triton.calls if call.model == "ensemble"]


async def refuse(call: Call) -> AsyncIterator[Any]:
    yield failure(NOT_CACHED)
