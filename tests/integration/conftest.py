# SPDX-License-Identifier: Apache-2.0
"""Stacks that several files of tests share: the embedded default model, the demo model that sees, scripted answers."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from demo_stack import DemoStack, demo_stack
from openai import AsyncOpenAI, OpenAI
from scripted import ScriptedStack, scripted_stack

from scripts.launcher import FREE_PORTS, Stack
from scripts.prepare_model import prepare_default_model

MODEL = "smollm2-135m-instruct"
# These machines are slow at times; a wait that ends early is no finding.
PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The prepared default checkpoint."""
    return prepare_default_model()


@pytest.fixture(scope="session")
def stack(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The default stack, on free ports."""
    logs = tmp_path_factory.mktemp("logs")
    names = ["--served-model-name", MODEL, "qwen2"]
    with Stack([str(smollm2_dir), *names, "--log-dir", str(logs), *FREE_PORTS]) as running:
        yield running
    # A clean stop is checked on the scripted stacks: here raw Triton clients meet Triton's own leak (reply.py).


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """The model that sees, and pictures that its server may read."""
    with demo_stack(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="session")
def scripted_qwen3(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """Qwen3's prompts and answers around scripts; each test plays its own."""
    names = ("qwen3", "qwen3-other-name")
    with scripted_stack("qwen3", qwen3_tokenizer_dir, tmp_path_factory.mktemp("qwen3"), names) as running:
        yield running


@pytest.fixture(scope="session")
def client(stack: Stack) -> OpenAI:
    """The official client, synchronous."""
    return OpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture
def async_client(stack: Stack) -> AsyncOpenAI:
    """The official client, asynchronous; one per test, since each test has its own event loop."""
    return AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture(scope="session")
def http(stack: Stack) -> Iterator[httpx.Client]:
    """Plain HTTP on the frontend."""
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as plain:
        yield plain


def running_requests(stack: Stack) -> float:
    """The engine's own count of requests inside it, from Triton's metrics endpoint."""
    text = httpx.get(stack.metrics_url, timeout=PATIENCE_S).text
    found = re.findall(r"^triton_chat_engine_(?:running|waiting)\{.*\} ([0-9.e+]+)$", text, re.MULTILINE)
    assert len(found) == 2, "the engine's gauges are missing from Triton's metrics"
    return sum(map(float, found))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll until the condition holds; fail naming it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
