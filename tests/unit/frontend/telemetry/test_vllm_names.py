# SPDX-License-Identifier: Apache-2.0
"""The load of the engine under vLLM's names: what an endpoint picker reads, and what it costs the engine."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.fake_triton import Served, silence
from tests.fakes.frontend_server import WAIT, Serving, serving
from tests.fakes.web_server import Web, response, web

TOLD = {
    "running": 3,
    "waiting": 2,
    "kv_cache_usage": 0.25,
    "kv_cache_blocks": 1000.0,
    "kv_cache_block_size": 16,
    "looked_up_prompt_tokens_total": 640,
    "cached_prompt_tokens_total": 512,
    "generated_tokens_total": 7,
    "preemptions_total": 0,
    "drafts_total": 5,
    "draft_tokens_total": 20,
    "accepted_draft_tokens_total": 11,
}
LORA = {"max_lora": 2, "running_lora_adapters": ["french", "legal"], "waiting_lora_adapters": []}


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr("frontend.triton.engine_statistics.MAX_AGE", 0)
    async with serving(max_in_flight=1, max_queued=4, queue_timeout=WAIT) as running:
        running.triton.statistics = dict(TOLD)
        yield running


async def read(served: Serving, path: str = "/metrics/vllm") -> dict[str, tuple[str, dict[str, str], float]]:
    """Return the type, the labels and the value of each of vLLM's metrics."""
    text = (await served.http.get(path)).raise_for_status().text
    return {
        sample.name: (family.type, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("vllm:")
    }


@pytest.mark.parametrize("path", ["/metrics", "/metrics/vllm"])
async def test_names_types_labels_and_values(served: Serving, path: str) -> None:
    model = {"model_name": "model"}
    assert await read(served, path) == {
        "vllm:num_requests_running": ("gauge", model, 3),
        "vllm:num_requests_waiting": ("gauge", model, 2),
        "vllm:kv_cache_usage_perc": ("gauge", model, 0.25),
        "vllm:gpu_cache_usage_perc": ("gauge", model, 0.25),
        "vllm:prefix_cache_queries_total": ("counter", model, 640),
        "vllm:prefix_cache_hits_total": ("counter", model, 512),
        "vllm:gpu_prefix_cache_queries_total": ("counter", model, 640),
        "vllm:gpu_prefix_cache_hits_total": ("counter", model, 512),
        "vllm:spec_decode_num_drafts_total": ("counter", model, 5),
        "vllm:spec_decode_num_draft_tokens_total": ("counter", model, 20),
        "vllm:spec_decode_num_accepted_tokens_total": ("counter", model, 11),
        "vllm:cache_config_info": ("gauge", {"block_size": "16", "num_gpu_blocks": "1000"} | model, 1),
    }


async def test_requests_queued_in_the_frontend_wait_too(served: Serving) -> None:
    served.triton.script = silence
    tasks = [asyncio.create_task(served.chat()) for _ in range(3)]
    async with asyncio.timeout(WAIT):
        while (await read(served))["vllm:num_requests_waiting"][2] != 2 + 2:
            await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(WAIT):
        while (await read(served))["vllm:num_requests_waiting"][2] != 2:
            await asyncio.sleep(0.02)


async def test_each_of_several_models_has_its_own_numbers(served: Serving) -> None:
    """Only loaded ones, under the first of their names."""
    served.triton.statistics_of = {
        "qwen3.tensorrt_llm": {"running": 4, "waiting": 0},
        "gemma.g2.tensorrt_llm": {"running": 5, "waiting": 1},
        "bge": {"running": 2, "waiting": 0},
    }
    served.triton.served = {
        "qwen3": Served("qwen3.", {"names": ["qwen3", "default"]}),
        "gemma": Served("gemma.g2.", {"names": ["gemma-3"], "max_in_flight": 1}),
        "bge": Served("", {"kind": "embedding", "names": ["bge"]}),
        "failed": Served("failed.", {"names": ["failed"]}, state="UNAVAILABLE"),
    }

    async def requests(name: str) -> dict[str, float]:
        lines = (await served.http.get("/metrics/vllm")).text.splitlines()
        found = [re.fullmatch(rf'vllm:num_requests_{name}{{model_name="(.*)"}} (.*)', line) for line in lines]
        return {one[1]: float(one[2]) for one in found if one}

    async with asyncio.timeout(WAIT):
        while await requests("running") != {"qwen3": 4, "gemma-3": 5, "bge": 2}:
            await asyncio.sleep(0.05)
    served.triton.script = silence
    tasks = [asyncio.create_task(served.chat(model="gemma-3")) for _ in range(3)]
    async with asyncio.timeout(WAIT):
        while await requests("waiting") != {"qwen3": 0, "gemma-3": 1 + 2, "bge": 0}:
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_adapters(served: Serving) -> None:
    served.triton.statistics = TOLD | LORA
    kind, labels, updated = (await read(served))["vllm:lora_requests_info"]
    assert (kind, labels) == (
        "gauge",
        {"model_name": "model", "max_lora": "2", "running_lora_adapters": "french,legal", "waiting_lora_adapters": ""},
    )
    assert (await read(served))["vllm:lora_requests_info"][2] > updated > 1e9, (
        "a time, by which a picker finds the latest"
    )


async def test_what_the_engine_does_not_tell_is_absent(served: Serving) -> None:
    """TensorRT-LLM's LLM API counts only these."""
    served.triton.statistics = {"running": 1, "generated_tokens_total": 7}
    assert set(await read(served)) == {"vllm:num_requests_running"}


async def test_an_engine_without_statistics_has_none_of_the_metrics() -> None:
    async with serving() as served:
        served.triton.statistics = None
        assert await read(served) == await read(served, "/metrics") == {}
    async with serving() as served:
        served.triton.engine_backend = "tensorrtllm"
        assert await read(served) == {}


BACKEND = """# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 2
nv_trt_llm_request_metrics{model="other.tensorrt_llm",request_type="waiting",version="1"} 9
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="x"} not a number
"""


async def test_the_cpp_backend_is_read_from_tritons_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.triton.engine_statistics.MAX_AGE", 0)
    page = [BACKEND]

    async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(response(page[0].encode(), 200 if path == "/metrics" and page[0] else 500))

    async with web(reply) as triton, serving(triton_metrics_url=f"http://127.0.0.1:{triton.port}/metrics") as served:
        served.triton.engine_backend = "tensorrtllm"
        found = await read(served)
        assert {name: value for name, (_, _, value) in found.items()} == {
            "vllm:num_requests_running": 3,
            "vllm:num_requests_waiting": 2,
            "vllm:kv_cache_usage_perc": 0.25,
            "vllm:gpu_cache_usage_perc": 0.25,
            "vllm:cache_config_info": 1,
        }
        labels = found["vllm:cache_config_info"][1]
        assert (labels["block_size"], labels["num_gpu_blocks"]) == ("64", "6239")
        for page[0] in ("nv_trt_llm_request_metrics{", ""):
            assert await read(served) == {}


async def test_a_slow_engine_does_not_hold_up_the_metrics(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.triton.engine_statistics.PATIENCE", 0.05)
    served.triton.statistics_delay_s = 0.5
    assert await read(served, "/metrics") == {}
    served.triton.statistics_delay_s = 0
    async with asyncio.timeout(WAIT):
        while not await read(served):
            await asyncio.sleep(0.02)


async def test_the_metrics_of_a_lost_triton_are_absent(served: Serving) -> None:
    assert await read(served)
    await served.triton.stop()
    try:
        async with asyncio.timeout(WAIT):
            while await read(served):
                await asyncio.sleep(0.02)
    finally:
        await served.triton.start(served.triton.port)


async def test_the_engine_is_asked_once_for_many_readers(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.triton.engine_statistics.MAX_AGE", 60)
    first = await read(served)
    served.triton.statistics = TOLD | {"running": 9}
    assert await asyncio.gather(*(read(served) for _ in range(20))) == [first] * 20
