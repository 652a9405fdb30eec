# SPDX-License-Identifier: Apache-2.0
"""Runs of made-up requests: what they count and find, when they end, and whether memory grows."""

import math
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from scripts.launcher.child_process import ChildProcess
from tests.soak.attack import Attacker
from tests.soak.attack_command import Ends, shares
from tests.soak.gauges import AT_REST, busy, sum_gauges
from tests.soak.memory_trend import MemoryTrend
from tests.soak.tally import Tally
from tests.soak.triton_attack import attack_triton
from tests.support.scripted import ROOT
from tests.support.waiting import wait_until


def test_every_request_is_in_one_share() -> None:
    assert shares(10, 3) == [4, 3, 3] and shares(1, 3) == [1, 0, 0]


def test_counts_of_processes_are_joined_by_endpoint() -> None:
    first, second = Tally(), Tally()
    for tally, endpoint, status in ((first, "/a", "200"), (first, "/a", "400"), (second, "/b", "400")):
        tally.count(endpoint, status)
    second.findings["/b: 500"] = "GET /b"
    first.add(second)
    assert first.findings == {"/b: 500": "GET /b"} and first.requests == 3
    assert list(first.table("endpoint")) == [
        "| endpoint | requests | 400 | 200 |",
        "|---|---:|---:|---:|",
        "| /a | 2 | 1 | 1 |",
        "| /b | 1 | 1 |  |",
        "| all | 3 | 2 | 1 |",
    ]


def test_growth_in_the_last_half_is_told_per_minute() -> None:
    """A process that grows by 1 MiB in 10 s, one that only grew at first, and one that began late."""
    trend = MemoryTrend()
    for index in range(40):
        late = {"late": 5.0} if index > 20 else {}
        trend.add(10.0 * index, {"growing": 100.0 + index, "warm": min(100.0 + index, 110.0), **late})
    assert trend.slope("growing") == pytest.approx(6.0) and trend.slope("warm") == pytest.approx(0.0)
    rows = {line.split(" | ")[0]: line for line in trend.table()}
    assert rows["| growing"] == "| growing | 102 | 106 | 122 | 138 | 139 | +6.00 |"
    assert rows["| warm"] == "| warm | 102 | 106 | 110 | 110 | 110 | +0.00 |"
    assert rows["| late"].split(" | ")[1:6] == ["0", "0", "4", "5", "5"]


def test_few_samples_have_no_slope() -> None:
    trend = MemoryTrend()
    trend.add(0.0, {"one": 1.0})
    assert math.isnan(trend.slope("one")) and list(trend.table())[-1] == "| one | 1 | 1 | 1 | 1 | 1 | +nan |"


def test_memory_is_sampled_meanwhile_and_a_failure_is_told() -> None:
    trend, taken = MemoryTrend(), [0.0]

    def read() -> Mapping[str, float]:
        taken[0] += 1
        if taken[0] > 3:
            raise ValueError("gone")
        return {"one": taken[0]}

    with pytest.raises(ValueError, match="gone"), trend.sampled(read, 0.001):
        time.sleep(0.1)
    assert [sample["one"] for sample in trend.sizes] == [1.0, 2.0, 3.0]


@pytest.mark.asyncio
async def test_an_attack_sends_nothing_after_its_time() -> None:
    maker: Any = None
    tally = await Attacker("http://127.0.0.1:9", maker).run(10, 2, seconds=0.0)
    assert tally.requests == 0


class Answering(pb_grpc.GRPCInferenceServiceServicer):
    """A Triton that serves `ensemble` and answers in turn: with tokens, an error, an error as an output, not at all."""

    def __init__(self) -> None:
        self.streams = 0

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        config = pb.ModelConfigResponse()
        text_format.Parse((ROOT / "model_repository" / request.name / "config.pbtxt").read_text(), config.config)
        return config

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        turn, self.streams = self.streams % 4, self.streams + 1
        async for _ in requests:
            if turn == 0:
                yield pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse())
                yield final()
            elif turn == 1:
                yield pb.ModelStreamInferResponse(error_message="unexpected shape")
            elif turn == 2:
                text = b"stub process is not healthy"
                made = final()
                made.infer_response.outputs.add(name="error", datatype="BYTES", shape=[1, 1])
                made.infer_response.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
                yield made


def final() -> Any:
    made = pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse())
    made.infer_response.parameters["triton_final_response"].bool_param = True
    return made


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[Answering, str]]:
    """Serve it; gives it and its address."""
    triton, server = Answering(), grpc.aio.server()
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield triton, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.asyncio
async def test_answers_of_triton_are_counted_by_kind() -> None:
    async with answering() as (triton, address):
        # With one client they come in turn.
        tally = await attack_triton(address, ["ensemble"], 8, "a", concurrency=1, hang_s=0.5)
        timed = await attack_triton(address, ["ensemble"], 8, "a", seconds=0.0)
    assert tally.statuses == {"ok": 2, "triton": 4, "hang": 2} and timed.requests == 0
    assert tally.endpoints.total() == 8 and {"ensemble: hang"} < tally.findings.keys()
    assert any("stub process" in found for found in tally.findings) and len(tally.findings) >= 2
    assert triton.streams == 8


@pytest.mark.asyncio
async def test_clients_of_triton_that_leave_are_counted_as_such() -> None:
    """None hangs, though a fourth of the answers never come."""
    async with answering() as (triton, address):
        tally = await attack_triton(address, ["ensemble"], 40, "a", hang_s=30.0, leaving=1.0)
    assert tally.statuses["left"] >= 25 and tally.statuses.keys() <= {"left", "hang"}
    assert triton.streams > 0


def test_a_process_that_ended_is_told_once_with_its_status_and_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import os; print('terminate called', flush=True); os.abort()"
    aborting = ChildProcess("tritonserver", [sys.executable, "-c", code], os.environ, tmp_path / "a.log")
    staying = ChildProcess("frontend-1", ["sleep", "100"], os.environ, tmp_path / "b.log")
    ends = Ends([aborting, staying])
    try:
        wait_until(lambda: aborting.exit_status() is not None, "it has ended")
        ends.look()
        ends.look()
    finally:
        for one in (aborting, staying):
            one.stop(0.0)
    said = capsys.readouterr().out
    assert said == "tritonserver ended with status -6. The end of its log:\nterminate called\n"
    assert ends.said == {"tritonserver"}


def test_gauges_of_models_that_are_no_longer_loaded_are_left_out() -> None:
    text = 'triton_chat_engine_running{model="a.g1.tensorrt_llm"} 2\ntriton_chat_engine_running{model="a.g2.tensorrt_llm"} 1\n'
    assert sum_gauges(text, {"a.g2.tensorrt_llm"}) == {"triton_chat_engine_running": 1.0}
    assert sum_gauges(text, None) == {"triton_chat_engine_running": 3.0}
    assert (
        busy(
            sum_gauges(text.replace(" 1\n", " 0\n"), {"a.g2.tensorrt_llm"})
            | dict.fromkeys(AT_REST[:2] + AT_REST[3:], 0.0)
        )
        == {}
    )
