# SPDX-License-Identifier: Apache-2.0
"""Overload and cancellation through a real Triton, with a scripted engine of few slots."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.soak.aborts import Aborter
from tests.soak.gauges import read_gauges, wait_at_rest
from tests.support.scripted import ScriptedStack, scripted_stack
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.python_engine(
    "the gauges that it reads are a Python engine's; test_trtllm reads the backend's"
)
LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": 2000, "ignore_eos": True}


@pytest.fixture(scope="module")
def scripted(qwen3_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedStack]:
    settings = {
        "MAX_IN_FLIGHT": "12",
        "MAX_QUEUED": "20",
        "QUEUE_TIMEOUT": "15",
        "ENGINE_MAX_REQUESTS": "16",
        "IMAGE_PRIVATE_HOSTS": "true",
    }
    environment = {f"TRITON_CHAT_{name}": value for name, value in settings.items()}
    folder = tmp_path_factory.mktemp("overload")
    with scripted_stack("qwen3", qwen3_tokenizer_dir, folder, more=["--slots", "8"], **environment) as running:
        running.play({"text": "on and on ", "repeat": True, "delay_s": 0.02})
        yield running


def test_nothing_is_left_of_aborted_requests(scripted: ScriptedStack) -> None:
    """Requests are aborted in the queue, while sending, fetching or streaming, before the first token, at a deadline."""
    stack = scripted.stack
    aborter = Aborter(stack.url, stack.model_names[0], 400, seed=1)
    asyncio.run(aborter.run(300, 24))
    wait_at_rest(stack, PATIENCE_S)
    assert sum(aborter.counts.values()) == 300
    assert aborter.counts["in a stream"] > 0, "some got as far as that"
    body = LONG | {"max_tokens": 5}
    answer = httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert answer.json()["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("fields", [{}, {"logprobs": True}], ids=["in-batches", "by-themselves"])
def test_the_tokens_of_an_aborted_answer_are_counted(scripted: ScriptedStack, fields: dict[str, bool]) -> None:
    name = "triton_chat_completion_tokens_total"
    before = read_gauges(scripted.stack)[name]
    body, seen = LONG | {"stream": True} | fields, 0
    with httpx.stream("POST", f"{scripted.stack.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
        for line in response.iter_lines():
            seen += '"content":"' in line and '"content":""' not in line
            if seen == 10:
                break
    wait_at_rest(scripted.stack, PATIENCE_S)
    assert 10 <= read_gauges(scripted.stack)[name] - before < LONG["max_tokens"]


def test_admission_keeps_to_the_limits(scripted: ScriptedStack) -> None:
    url = f"{scripted.stack.url}/v1/chat/completions"
    names = ("triton_chat_queued", "triton_chat_engine_running", "triton_chat_engine_waiting")

    def counts() -> tuple[float, ...]:
        gauges = read_gauges(scripted.stack)
        return tuple(gauges[name] for name in names)

    def told() -> dict[str, float]:
        """The requests under vLLM's names."""
        text = httpx.get(f"{scripted.stack.url}/metrics/vllm", timeout=PATIENCE_S).text
        return {name: float(value) for name, value in re.findall(r"^vllm:num_requests_(\w+)\S* (\S+)$", text, re.M)}

    limits = httpx.Limits(max_connections=None)
    with httpx.Client(timeout=PATIENCE_S, limits=limits) as client, ThreadPoolExecutor(40) as pool:
        headers = {"X-Request-Timeout": "30"}
        asked = [pool.submit(client.post, url, json=LONG, headers=headers) for _ in range(40)]
        wait_until(lambda: counts() == (20, 8, 4), "everything is full")
        wait_until(lambda: told() == {"running": 8, "waiting": 20 + 4}, "an endpoint picker sees it")
        answers = [one.result() for one in asked]
    refused = [one for one in answers if one.status_code == 503]
    assert len(refused) == 28, "8 had no place at all, 20 waited in vain"
    assert all(one.headers["retry-after"] == "1" for one in refused)
    wait_at_rest(scripted.stack, PATIENCE_S)


def test_the_engine_has_its_own_limit(scripted: ScriptedStack) -> None:
    """A request of many choices, or many frontends, can exceed each frontend's limit."""
    url = f"{scripted.stack.url}/v1/chat/completions"
    answer = httpx.post(url, json=LONG | {"n": 17, "max_tokens": 50}, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    wait_at_rest(scripted.stack, PATIENCE_S)


def test_prompts_are_in_no_log(scripted: ScriptedStack) -> None:
    url, marker = f"{scripted.stack.url}/v1/chat/completions", "xyzzy-4711"
    messages = [{"role": "user", "content": marker}]
    bodies = [
        {"messages": messages, "max_tokens": 5},
        {"messages": messages, "max_tokens": 5, "stream": True},
        {"messages": messages, "temperature": marker},
        {"messages": [{"role": marker, "content": marker}]},
        {"messages": messages, "max_tokens": 5, "guided_regex": f"({marker}"},
        {"messages": messages, "max_tokens": 5, "n": 17},
    ]
    statuses = [httpx.post(url, json=body, timeout=PATIENCE_S).status_code for body in bodies]
    assert statuses[:4] == [200, 200, 400, 400] and statuses[5] == 503
    assert httpx.post(url, content=f'{{"messages": "{marker}', timeout=PATIENCE_S).status_code == 400
    logs = list(scripted.stack.options.log_dir.iterdir())
    assert len(logs) >= 2
    assert [log.name for log in logs if marker in log.read_text(errors="replace")] == []
