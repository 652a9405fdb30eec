# SPDX-License-Identifier: Apache-2.0
"""Helpers for the tests of docker/: the tools of `make setup-containers`, and the options that the files may name."""

import importlib.util
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from frontend.settings import ENV_PREFIX, Settings
from scripts.launcher.model_settings import MODEL_SETTINGS
from scripts.launcher.options import LaunchOptions

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BIN = ROOT / ".cache" / "containers-venv" / "bin"
PORT, METRICS_PORT = LaunchOptions().port, LaunchOptions().triton_metrics_port
# The field of `--engine` is engine_name.
LAUNCHERS = {field.name for field in fields(LaunchOptions)} - {"given", "settings", "engine_name", "notes"}
SETTINGS = {field.name for field in fields(Settings)}
# vLLM's options, read from the text of their class, as importing it takes many seconds.
_VLLM = Path(importlib.util.find_spec("vllm").submodule_search_locations[0]) / "engine" / "arg_utils.py"
VLLM = set(re.findall(r"^    (\w+): ", _VLLM.read_text(encoding="utf-8"), re.MULTILINE))
# Parameters of the backend `tensorrtllm`, read from its config.
_TRTLLM = (ROOT / "model_repository" / "tensorrt_llm" / "configs" / "trtllm.pbtxt").read_text(encoding="utf-8")
TRTLLM = set(re.findall(r'key: "(\w+)"', _TRTLLM))
OPTIONS = LAUNCHERS | SETTINGS | MODEL_SETTINGS.keys() | TRTLLM | VLLM
VARIABLES = {ENV_PREFIX + name.upper() for name in SETTINGS | MODEL_SETTINGS.keys() | LAUNCHERS}
VARIABLES |= {f"{ENV_PREFIX}{name}" for name in ("MODEL", "ENGINE", "ENGINE_OPTIONS", "STYLER", "CACHE")}


def run_tool(name: str, *arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run one of the environment's programs; fails the test if it is not installed."""
    if not (BIN / name).is_file():
        pytest.fail(f"no {BIN / name}: run `make setup-containers`")
    return subprocess.run(
        [str(BIN / name), *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )


def check_flags(command: list[str]) -> None:
    """Check that every --flag=value of a launcher's command line is a known option."""
    flags = {re.split("[= ]", word)[0][2:].replace("-", "_") for word in command if word.startswith("--")}
    assert flags <= OPTIONS, flags - OPTIONS
    assert not [word for word in command if word.startswith("-") and not word.startswith("--")]


def shutdown_seconds(column: int) -> list[int]:
    """The delay, the grace period and the termination that docs/upgrades.md names, for Kubernetes (1) or Compose (2)."""
    text = (ROOT / "docs" / "upgrades.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in text.splitlines() if re.match(r"\| (delay|grace|termination) \|", line)]
    return [int(re.match(r" (\d+) s: ", row[1 + column])[1]) for row in table]
