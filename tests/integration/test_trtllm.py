# SPDX-License-Identifier: Apache-2.0
"""Differences of TensorRT-LLM's C++ backend from Python engines, with its double: ends, ids, beams, refusals.

That the API behaves alike is for the other files: test_dialogues runs on both, `--double` runs all on the double.
"""

import asyncio
import base64
import os
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from python_backend.metrics import PERIOD_S
from scripts.split.splitter import split_checkpoint
from tests.support.scripted import ALL_DOUBLES, DOUBLE, ENGINE, ScriptedStack, scripted_stack
from tests.support.triton_requests import infer, tensor, text_of
from tests.support.vlm_checkpoints import make_internvl
from tests.support.waiting import PATIENCE_S, running_requests, wait_until

HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}
ENDLESS = {"text": "on and on ", "repeat": True, "delay_s": 0.02}
EXTENSIONS = {"finish_reason", "stream_id", "error", "top_log_probs", "num_cached_tokens", "prompt_log_probs"}


@pytest.fixture(params=[False, True], ids=["end-id-kept", "end-id-sent"])
def stack(request, double_qwen3: ScriptedStack) -> Iterator[ScriptedStack]:
    double_qwen3.set_double(sends_end_id=request.param)
    yield double_qwen3
    double_qwen3.set_double()


def ask(stack: ScriptedStack, **fields: Any) -> httpx.Response:
    return httpx.post(f"{stack.stack.url}/v1/chat/completions", json=HELLO | fields, timeout=PATIENCE_S)


def prompt(text: bytes = b"Say it", **more: tuple[Any, Any]) -> list:
    return [tensor("text_input", text, object), *(tensor(name, *value) for name, value in more.items())]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("max_tokens", "text", "reason"),
    [(None, "one two three", b"stop"), (20, "one two three", b"stop"), (2, "one two", b"length")],
    ids=["no-limit", "below-the-limit", "at-the-limit"],
)
async def test_the_end_is_inferred_for_any_client(stack, stream, max_tokens, text, reason) -> None:
    stack.play({"text": "one two three", "sizes": [1]})
    inputs = prompt(stream=(stream, bool), **({"max_tokens": (max_tokens, np.int32)} if max_tokens else {}))
    responses = await infer(stack.stack, "ensemble", inputs)
    assert text_of(responses) == text
    assert [r["finish_reason"].item() for r in responses if "finish_reason" in r] == [reason]
    assert "finish_reason" in responses[-1]


async def test_an_end_id_that_the_client_ignores_ends_nothing(double_qwen3: ScriptedStack) -> None:
    end = 151645
    double_qwen3.play({"ids": [16, end, 17, end, 18, 19], "sizes": [1]})
    inputs = prompt(stream=(True, bool), max_tokens=(4, np.int32), end_id=(-1, np.int32))
    responses = await infer(double_qwen3.stack, "ensemble", inputs)
    assert responses[-1]["completion_tokens"].item() == 4
    assert responses[-1]["finish_reason"].item() == b"length"


async def test_the_engine_sends_nothing_beyond_the_contract(stack) -> None:
    stack.play({"text": "one two", "sizes": [1]})
    lengths = [tensor("input_lengths", 2, np.int32), tensor("request_output_len", 9, np.int32)]
    inputs = [tensor("input_ids", [16, 17], np.int32), *lengths, tensor("end_id", 151645, np.int32)]
    responses = await infer(stack.stack, "tensorrt_llm", [*inputs, tensor("streaming", True, bool)])
    assert len(responses) == 3, "the last one says no more than that an end id came"
    assert not any(EXTENSIONS & set(response) for response in responses)
    assert [response["sequence_length"].item() for response in responses][:2] == [1, 1], "only of this response"


def test_a_client_that_disconnects_frees_the_engine(double_qwen3: ScriptedStack) -> None:
    stack = double_qwen3.stack
    double_qwen3.play(ENDLESS)
    body = HELLO | {"stream": True, "max_tokens": 4000}
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
        lines = response.iter_lines()
        for _ in range(9):
            next(lines)
        wait_until(lambda: running_requests(stack) == 1, "the request is seen running")
        line, url = 'vllm:num_requests_running{model_name="qwen3"} 1.0', f"{stack.url}/metrics/vllm"
        wait_until(lambda: line in httpx.get(url, timeout=PATIENCE_S).text, "an endpoint picker sees it")
    wait_until(lambda: running_requests(stack) == 0, "the engine drops it", 20)


def test_a_stop_string_frees_the_engine(double_qwen3: ScriptedStack) -> None:
    double_qwen3.play(ENDLESS)
    answer = ask(double_qwen3, stop=["and"], max_tokens=4000).json()
    assert answer["choices"][0]["finish_reason"] == "stop" and answer["choices"][0]["message"]["content"] == "on "
    wait_until(lambda: running_requests(double_qwen3.stack) == 0, "the engine ends it", 20)


async def test_answers_of_one_request_id_are_never_mixed(double_qwen3: ScriptedStack) -> None:
    """The backend's responses do not distinguish two requests of one id."""
    double_qwen3.play({"text": "one two three four", "delay_s": 0.3})

    async def ask_once() -> str:
        try:
            inputs = prompt(stream=(True, bool))
            return text_of(await infer(double_qwen3.stack, "ensemble", inputs, request_id="0"))
        except Exception as error:
            return str(error)

    answers = await asyncio.gather(ask_once(), ask_once())
    assert sorted("request id" in answer for answer in answers) == [False, True]
    assert "one two three four" in answers
    assert await ask_once() == "one two three four", "an id may be used again"


async def test_sequences_and_beams(double_qwen3: ScriptedStack) -> None:
    double_qwen3.play({"text": "one two three", "sizes": [1], "delay_s": 0.02})
    inputs = prompt(stream=(True, bool), num_return_sequences=(2, np.int32))
    responses = await infer(double_qwen3.stack, "ensemble", inputs)
    texts = {
        index: "".join(r["text_output"].item().decode() for r in responses if r["sequence_index"].item() == index)
        for index in (0, 1)
    }
    assert texts == {0: "one two three", 1: "one two three"}
    with pytest.raises(Exception, match="max beam width"):
        await infer(double_qwen3.stack, "ensemble", prompt(beam_width=(2, np.int32)))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2, "logprobs": True}, "top_logprobs"),
        ({"min_p": 0.1}, "min_p"),
        ({"priority": 1}, "priority"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"response_format": {"type": "json_object"}}, None),
        ({"guided_regex": "[a-z]+"}, None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_the_backend_would_ignore_is_refused(double_qwen3: ScriptedStack, fields, param) -> None:
    double_qwen3.play({"text": "never said"})
    refused = ask(double_qwen3, **fields)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param
    assert "engine" in refused.json()["error"]["message"]


def test_the_backend_gets_the_apis_sampling_defaults(double_qwen3: ScriptedStack) -> None:
    """It reads no generation config and decodes greedily by default."""
    double_qwen3.play({"text": "one"})
    assert ask(double_qwen3).status_code == 200
    asked = double_qwen3.asked_double()
    assert (asked["temperature"], asked["runtime_top_p"], asked["streaming"]) == (1.0, 1.0, False)
    assert ask(double_qwen3, temperature=0, seed=7).status_code == 200
    asked = double_qwen3.asked_double()
    assert (asked["runtime_top_k"], asked["seed"]) == (1, 7)


def test_nothing_is_left_in_postprocessing(double_qwen3: ScriptedStack) -> None:
    """Tokenizing and refused requests announce no answer; ended and stopped ones are removed."""
    stack = double_qwen3.stack

    def streams() -> float:
        lines = httpx.get(stack.metrics_url, timeout=PATIENCE_S).text.splitlines()
        return float(next(line for line in lines if line.startswith("triton_chat_postprocessing_streams{")).split()[-1])

    def settled() -> float:
        """The gauge once it has stayed the same for several periods: it is published late.

        Earlier tests leave answers behind whose request the engine refused; the backend tells postprocessing nothing.
        """
        before = streams()
        for _ in range(20):
            time.sleep(4 * PERIOD_S)
            before, last = streams(), before
            if before == last:
                return before
        raise AssertionError("the number of answers keeps changing")

    wait_until(lambda: running_requests(stack) == 0, "an idle engine")
    before = settled()
    double_qwen3.play({"text": "one two"})
    assert httpx.post(f"{stack.url}/tokenize", json={"prompt": "Hello"}, timeout=PATIENCE_S).status_code == 200
    assert ask(double_qwen3, max_tokens=10**6).status_code == 400
    assert ask(double_qwen3, n=3, stop=["two"]).status_code == 200
    wait_until(lambda: streams() <= before, "no answer is held any more", 20)


def test_the_engines_folder_reaches_the_backend(double_qwen3: ScriptedStack) -> None:
    stack = double_qwen3.stack
    config = httpx.get(f"{stack.triton_http_url}/v2/models/tensorrt_llm/config", timeout=PATIENCE_S).json()
    parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
    folder = Path(parameters["gpt_model_path"])
    assert folder.name == ENGINE and (folder / DOUBLE).is_file()
    assert parameters["tokenizer_dir"] == str(stack.model.checkpoint.path)
    assert config["model_transaction_policy"]["decoupled"]


@pytest.mark.skipif(ALL_DOUBLES not in os.environ, reason="a stack of its own: with --double")
def test_images_reach_the_backend_as_rows(tmp_path: Path, qwen3_tokenizer_dir: Path) -> None:
    made = make_internvl(tmp_path / "whole", qwen3_tokenizer_dir)
    served = split_checkpoint(made.path, tmp_path / "served")
    (tmp_path / "stack").mkdir()
    file = BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    with scripted_stack("internvl2_5", served, tmp_path / "stack", double=True) as stack:
        stack.play({"text": "A red picture."})
        answer = ask(stack, messages=[{"role": "user", "content": parts}])
        assert answer.json()["choices"][0]["message"]["content"] == "A red picture.", answer.text
        asked = set(stack.asked_double())
    assert {"prompt_embedding_table", "prompt_table_extra_ids"} <= asked and "images" not in asked


def test_the_weights_of_an_adapter_travel_once_and_again_when_they_are_dropped(double_qwen3: ScriptedStack) -> None:
    url = f"{double_qwen3.stack.url}/v1/models"
    listed = {one["id"]: one for one in httpx.get(url, timeout=PATIENCE_S).json()["data"]}
    assert listed["sql"]["parent"] == listed["poet"]["parent"] == "qwen3"
    double_qwen3.play({"text": "one"})
    double_qwen3.set_double(adapters=1)

    def weights_sent(model: str) -> bool:
        """Ask an adapter; returns whether its weights went along with the request that was answered."""
        answer = ask(double_qwen3, model=model)
        assert answer.status_code == 200 and answer.json()["model"] == model, answer.text
        asked = double_qwen3.asked_double()
        assert asked["lora_task_id"] == listed[model]["lora_task_id"]
        assert ("lora_weights" in asked) is ("lora_config" in asked)
        return "lora_weights" in asked

    # The cache has room for one: each drops the other, and the first one what other tests have left there.
    weights_sent("poet")
    assert [weights_sent(model) for model in ("sql", "sql", "poet", "poet", "sql", "sql")] == [True, False] * 3
    assert ask(double_qwen3).status_code == 200 and "lora_task_id" not in double_qwen3.asked_double()
    assert ask(double_qwen3, model="none").status_code == 404
    double_qwen3.set_double()


async def test_triton_clients_send_the_weights_by_a_parameter(double_qwen3: ScriptedStack) -> None:
    models = httpx.get(f"{double_qwen3.stack.url}/v1/models", timeout=PATIENCE_S).json()["data"]
    (sql,) = [one["lora_task_id"] for one in models if one["id"] == "sql"]
    double_qwen3.play({"text": "one"})
    inputs = prompt(lora_task_id=(sql, np.uint64), stream=(True, bool))
    assert text_of(await infer(double_qwen3.stack, "ensemble", inputs, {"send_adapter": True})) == "one"
    assert "lora_weights" in double_qwen3.asked_double()
    unknown = prompt(lora_task_id=(5, np.uint64), stream=(True, bool))
    with pytest.raises(Exception, match="There is no adapter with the id 5"):
        await infer(double_qwen3.stack, "ensemble", unknown, {"send_adapter": True})
