# SPDX-License-Identifier: Apache-2.0
"""How processes become clients of one engine core of vLLM."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from vllm.v1.engine import core_client
from vllm.v1.engine.utils import EngineZmqAddresses

from engines.options import EngineOptions
from engines.vllm import engine as vllm_engine
from engines.vllm import start
from engines.vllm.engine import VllmEngine

ARGS = SimpleNamespace(enable_log_requests=False, disable_log_stats=True)


class FakeLlm:
    """Starts as AsyncLLM does, as far as the addresses of the engine core go."""

    started: ClassVar[list[dict[str, Any]]] = []
    launched: ClassVar[list[EngineZmqAddresses]] = []

    @classmethod
    def from_vllm_config(cls, config: Any, **client: Any) -> SimpleNamespace:
        cls.started.append(client)
        if "client_addresses" not in client:
            own = EngineZmqAddresses(inputs=["own-in"], outputs=["own-out"])
            with core_client.launch_core_engines(config, None, False, own):
                pass
        return SimpleNamespace(errored=False)


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLlm]:
    def launch(config: Any, executor: Any, log_stats: bool, addresses: Any) -> Any:
        FakeLlm.launched.append(addresses)
        return nullcontext()

    monkeypatch.setattr(start, "AsyncLLM", FakeLlm)
    monkeypatch.setattr(start, "launch_core_engines", launch)
    monkeypatch.setattr(FakeLlm, "started", [])
    monkeypatch.setattr(FakeLlm, "launched", [])
    return FakeLlm


async def test_the_engine_core_gets_the_sockets_of_all_clients(llm: type[FakeLlm]) -> None:
    others = start.client_addresses(2)
    assert len({address for other in others for address in other.values()}) == 4
    before = core_client.launch_core_engines
    _, exit_task = start.start_llm(ARGS, None, None, others)
    (launched,) = llm.launched
    assert launched.inputs == ["own-in", *(other["input_address"] for other in others)]
    assert launched.outputs == ["own-out", *(other["output_address"] for other in others)]
    assert core_client.launch_core_engines is before
    _, joined_task = start.join_llm(ARGS, None, None, others[1], 2, 3)
    assert [client["client_count"] for client in llm.started] == [3, 3]
    # vLLM sends what it makes of a request to the client of this number, in the order of the sockets.
    assert (llm.started[1]["client_addresses"], llm.started[1]["client_index"]) == (others[1], 2)
    exit_task.cancel()
    joined_task.cancel()


async def test_a_client_alone_starts_as_ever(llm: type[FakeLlm]) -> None:
    _, exit_task = start.start_llm(ARGS, None, None)
    assert (llm.launched[0].inputs, llm.launched[0].outputs) == (["own-in"], ["own-out"])
    exit_task.cancel()


def test_data_parallelism_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    monkeypatch.setattr(vllm_engine, "engine_args", lambda options: SimpleNamespace(enable_lora=False))
    config = SimpleNamespace(parallel_config=SimpleNamespace(data_parallel_size=2))
    monkeypatch.setattr(vllm_engine, "engine_config", lambda args: config)
    peers: Any = SimpleNamespace(count=2, first=True)
    engine = VllmEngine(EngineOptions("vllm", "/models/m", {}))
    with pytest.raises(ValueError, match="data_parallel_size must be 1"):
        asyncio.run(engine.start_with(peers))
