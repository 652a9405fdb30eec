# SPDX-License-Identifier: Apache-2.0
"""Requests are counted in the engines, by Triton's metrics; nothing of a killed engine lives on."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.launcher.model_processes import ModelProcesses, requests_in
from tests.fakes.fake_triton import FakeTriton, Served

ENGINE = "one.tensorrt_llm"

METRICS = """# HELP triton_chat_engine_running Requests that the engine is processing
# TYPE triton_chat_engine_running gauge
triton_chat_engine_running{model="one.tensorrt_llm"} 3
triton_chat_engine_running{model="two.g2.tensorrt_llm"} 0
triton_chat_engine_waiting{model="one.tensorrt_llm"} 2
triton_chat_engine_preemptions_total{model="one.tensorrt_llm"} 7
nv_trt_llm_request_metrics{model="three.tensorrt_llm",request_type="active",version="1"} 4
nv_trt_llm_request_metrics{model="three.tensorrt_llm",request_type="scheduled",version="1"} 4
nv_inference_pending_request_count{model="one",version="1"} 9
"""


def test_running_and_waiting_requests_count() -> None:
    assert requests_in(METRICS) == {"one.tensorrt_llm": 5, "two.g2.tensorrt_llm": 0, "three.tensorrt_llm": 4}
    assert requests_in("") == {}


async def test_each_kind_of_engine_is_told_to_cancel_everything() -> None:
    triton = FakeTriton()
    triton.served = {"one": Served("one."), "bge": Served("bge.", {"kind": "embedding"})}
    await triton.start()
    processes = ModelProcesses("", f"127.0.0.1:{triton.port}", "", os.getpid)
    for engine in (ENGINE, "bge.embedding"):
        call = processes.cancel_all(engine)
        async with asyncio.timeout(30):
            while not call.done:
                await asyncio.sleep(0.01)
        assert call.error is None
    await triton.stop()
    assert triton.stopped_in == [ENGINE]
    assert [(one.model, one.parameters) for one in triton.calls] == [("bge.embedding", {"all_requests": True})]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of a model, which has started another, as engines do."""
    program, model = tmp_path / "triton_python_backend_stub", tmp_path / ENGINE / "1" / "model.py"
    program.symlink_to("/bin/bash")
    model.parent.mkdir(parents=True)
    model.write_text("sleep 120 & echo up; read never\n")
    process = subprocess.Popen([program, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    yield process
    process.kill()
    process.wait()


def test_what_a_killed_engine_has_started_is_killed(stub: "subprocess.Popen[bytes]") -> None:
    processes = ModelProcesses("", "", "", os.getpid)
    assert processes.alive([ENGINE]) and not processes.alive(["one.vit", "two.tensorrt_llm"])
    stub.kill()
    stub.wait()
    assert processes.alive([ENGINE]), "what it has started lives on"
    processes.kill(["one.vit"])
    assert processes.alive([ENGINE])
    processes.kill([ENGINE])
    end = time.monotonic() + 30
    while processes.alive([ENGINE]):
        assert time.monotonic() < end
        time.sleep(0.01)
