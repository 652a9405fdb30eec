# SPDX-License-Identifier: Apache-2.0
"""The whole benchmark once, on the scripted engine: real Triton, real frontend, all endpoints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


def test_the_whole_command(smollm2_dir: Path, tmp_path: Path) -> None:
    endpoints = ["triton-chat", "ensemble", "tensorrt_llm"]
    line = ["--model", str(smollm2_dir), "--scripted", "200", "--contenders", *endpoints, "--streams", "1", "4"]
    line += [
        "--workload",
        "turns",
        "--output-tokens",
        "10",
        "--rounds",
        "1",
        "--client-processes",
        "2",
        "--out",
        str(tmp_path),
    ]
    before = {process.pid for process in psutil.process_iter()}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "bench", *line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    saved: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    measurements = {(measurement["contender"], measurement["streams"]): measurement for measurement in saved["results"]}
    assert measurements.keys() == {(endpoint, streams) for endpoint in endpoints for streams in (1, 4)}
    for (_, streams), measurement in measurements.items():
        figures = measurement["figures"]
        assert (figures["requests"], figures["failed"], measurement["failures"]) == (4 * streams, 0, {})
        # All of what was asked, of prompts that grow from 512 tokens to 1280.
        assert figures["output_tokens"] == 4 * streams * 10
        assert figures["prompt_tokens"] == (512 + 768 + 1024 + 1280) * streams
        # Four answers in a row, ten tokens each at 200 a second: a late machine gives them later, never earlier.
        assert figures["seconds"] > 4 * 0.045
        assert 1 <= figures["tokens_per_chunk"] <= 10
        stubs = {"stub preprocessing", "stub vit", "stub tensorrt_llm", "stub postprocessing"}
        assert {"tritonserver", "frontend-1", *stubs} <= measurement["cpu_s_per_1k_tokens"].keys()
    about = saved["about"]
    assert about["scripted_rate"] == 200
    assert about["versions"]["tritonserver"]
    assert "tritonserver" in about["commands"][" ".join(endpoints)][0]
    assert "**triton-chat / tensorrt_llm**" in (tmp_path / "results.md").read_text()
    left = [
        process for process in psutil.process_iter() if process.pid not in before and str(tmp_path) in _line(process)
    ]
    assert not left


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
