# SPDX-License-Identifier: Apache-2.0
"""Two models in one tritonserver: each has its own steps, engine, processes and metrics."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from common.model_names import STEPS, step
from common.processes import children, command_line
from tests.support.scripted import PAIR, PAIR_ALIAS, ScriptedPair
from tests.support.waiting import PATIENCE_S, wait_until


def ask(pair: ScriptedPair, model: str, **more: object) -> dict:
    body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], **more}
    answer = httpx.post(f"{pair.stack.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def running(pair: ScriptedPair) -> dict[str, float]:
    """The number of requests in each engine."""
    text = httpx.get(pair.stack.metrics_url, timeout=PATIENCE_S).text
    found = re.findall(r'^triton_chat_engine_running\{model="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    return {model: float(value) for model, value in found}


def test_the_steps_have_the_names_of_their_models(scripted_models: ScriptedPair) -> None:
    stack = scripted_models.stack
    for model in PAIR:
        for name in (model, *(step(model, role) for role in STEPS)):
            ready = httpx.get(f"{stack.triton_http_url}/v2/models/{name}/ready", timeout=PATIENCE_S)
            assert ready.status_code == 200, name
    for role in ("ensemble", *STEPS):
        assert httpx.get(f"{stack.triton_http_url}/v2/models/{role}/ready", timeout=PATIENCE_S).status_code != 200
    stubs = [" ".join(command_line(child.pid)) for child in children(stack.parts[0].pid) if child.is_stub]
    assert {each for each in PAIR for stub in stubs if f"/{each}.tensorrt_llm/1/model.py" in stub} == set(PAIR)


def test_each_model_answers_with_its_own_engine_at_the_same_time(scripted_models: ScriptedPair) -> None:
    for model in PAIR:
        scripted_models.play(model, {"text": f"I am {model}. " * 20, "delay_s": 0.02})
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda model: ask(scripted_models, model), (*PAIR, PAIR_ALIAS)))
    said = [answer["choices"][0]["message"]["content"].split(". ")[0] for answer in answers]
    assert said == [f"I am {PAIR[0]}", f"I am {PAIR[1]}", f"I am {PAIR[0]}"]


@pytest.mark.parametrize("model", PAIR)
def test_a_stop_string_stops_the_engine_of_its_model(scripted_models: ScriptedPair, model: str) -> None:
    scripted_models.play(model, {"text": "on and on STOP ", "repeat": True, "delay_s": 0.02})
    answer = ask(scripted_models, model, stop=["STOP"], max_tokens=20_000)
    assert answer["choices"][0]["message"]["content"] == "on and on "
    idle = {f"{each}.tensorrt_llm": 0.0 for each in PAIR}
    wait_until(lambda: running(scripted_models) == idle, "both engines are idle")
