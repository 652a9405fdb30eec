# SPDX-License-Identifier: Apache-2.0
"""Greedy answers equal those of transformers, for the default model and for a tiny random model of each family."""

import asyncio
import json
import os
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from httpx import get, post
from openai import OpenAI

from common.finish_reason import FinishReason
from common.processes import descendants
from scripts.launcher import FREE_PORTS, Stack
from scripts.launcher.stubs import model_of
from tests.support.checkpoints import FAMILIES, make_checkpoint
from tests.support.evaluators import check_evaluations
from tests.support.gpu import memory_share
from tests.support.greedy import QUESTIONS, check_greedy, check_tokens
from tests.support.passing_stack import passing_stack
from tests.support.triton_requests import infer, tensor
from tests.support.waiting import running_requests, wait_until

# Of the default model, in bfloat16: each token is the likeliest by a factor of e at least, as CPUs round differently.
CLEAR = ["Please name the capital of France.", "Count from 1 to 10."]
# On CPUs that one is served and compared beside a model of embeddings (test_two_engines.py).
FAMILIES_HERE = [name for name in FAMILIES if name != "llama" or torch.cuda.is_available()]
EVALUATED = "qwen2"
# Two processes of tensorrt_llm share its engine core.
SHARED = EVALUATED
# It guesses tokens ahead, by itself as its draft model.
SPECULATIVE = "qwen3_moe"

# Tokens of an answer that is stopped: it takes longer than the gauges, which are seconds late.
LONG = 2000


def check_drafts(url: str) -> None:
    """Drafts are counted, most are accepted as they are the model's own, and what they do not go with is refused."""
    found = re.findall(r"^vllm:spec_decode_num_(\w+)_total\S* (\S+)", get(f"{url}/metrics/vllm").text, re.MULTILINE)
    counts = {name: float(value) for name, value in found}
    assert counts["drafts"] > 0
    assert 0.5 * counts["draft_tokens"] < counts["accepted_tokens"] <= counts["draft_tokens"]
    for field, value in (("min_p", 0.1), ("logit_bias", {"5": 1})):
        refused = post(f"{url}/v1/completions", json={"model": "", "prompt": "a", field: value}, timeout=120)
        assert (refused.status_code, "speculative decoding" in refused.text) == (400, True)


async def check_shared(stack: Stack) -> None:
    """Requests run in both processes, are counted in both, and are stopped in both, whichever gets the stop."""
    scalars = [tensor("input_lengths", 3, np.int32), tensor("request_output_len", LONG, np.int32)]
    prompt = [tensor("input_ids", [504, 3575, 282], np.int32), *scalars, tensor("streaming", True, bool)]
    ids, generated = [f"shared-{number}" for number in range(6)], generated_tokens(stack)

    def stop(request_id: str) -> asyncio.Task[list]:
        """Its answer holds nothing, and never comes to this client: whoever ends it earlier may take the stop back."""
        tensors = [*scalars, tensor("stop", True, bool)]
        return asyncio.create_task(infer(stack, "tensorrt_llm", tensors, None, request_id))

    answers = [asyncio.create_task(infer(stack, "tensorrt_llm", prompt, request_id=request_id)) for request_id in ids]
    await asyncio.to_thread(wait_until, lambda: running_requests(stack) == 6, "both processes count their requests")
    stubs = [stub for stub in descendants(stack.parts[0].pid) if stub.is_stub and model_of(stub.pid) == "tensorrt_llm"]
    assert len(stubs) == 2
    stops = [stop(request_id) for request_id in ids]
    ends = [responses[-1]["finish_reason"].item() for responses in await asyncio.gather(*answers)]
    for task in stops:
        task.cancel()
    await asyncio.gather(*stops, return_exceptions=True)
    assert ends == [FinishReason.CANCELLED] * 6
    await asyncio.to_thread(wait_until, lambda: running_requests(stack) == 0, "nothing runs")
    assert 6 <= generated_tokens(stack) - generated < 6 * LONG


def generated_tokens(stack: Stack) -> float:
    """The tokens that the engine has generated, from Triton's metrics endpoint."""
    text = get(stack.metrics_url, timeout=120).text
    return float(re.findall(r"^triton_chat_engine_generated_tokens_total\S* (\S+)", text, re.MULTILINE)[0])


def check_reasoning_budget(client: OpenAI) -> None:
    """The engine closes the reasoning after the budget, and what constrains the answer holds from there on."""
    for budget in (0, 5):
        fields = {"thinking_token_budget": budget, "skip_special_tokens": False}
        answer = client.completions.create(
            model="", prompt="<think>", temperature=0, max_tokens=12, logprobs=0, extra_body=fields
        )
        assert answer.choices[0].logprobs.tokens.index("</think>") == budget
    begun = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "<think>\n"}]
    fields = {
        "thinking_token_budget": 8,
        "continue_final_message": True,
        "structured_outputs": {"choice": ["yes", "no"]},
    }
    message = (
        client.chat.completions.create(model="", messages=begun, max_tokens=40, extra_body=fields).choices[0].message
    )
    assert message.content in ("yes", "no")
    assert message.reasoning_content


@pytest.mark.parametrize("question", CLEAR)
def test_the_default_model(client, smollm2_dir, question):
    check_greedy(client, smollm2_dir, question, torch.bfloat16)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FAMILIES_HERE]
)
def tiny(request, tmp_path_factory, smollm2_dir, qwen3_tokenizer_dir, gemma3_tokenizer_dir) -> Iterator[tuple]:
    """Client and folder of a stack that serves one family's tiny random checkpoint in float32."""
    tokenizers = {"smollm2": smollm2_dir, "qwen3": qwen3_tokenizer_dir, "gemma3": gemma3_tokenizer_dir}
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(request.param, tokenizers[FAMILIES[request.param][0]], folder)
    # The default model's stack runs beside it.
    length = "2048" if request.param == SHARED else "1024"
    flags = ["--dtype", "float32", "--max-model-len", length, *memory_share(0.3), *FREE_PORTS]
    if request.param == SHARED:
        flags += ["--engine-clients", "2"]
    if request.param == SPECULATIVE:
        config = {"method": "draft_model", "model": str(folder), "num_speculative_tokens": 3}
        flags += ["--speculative-config", json.dumps(config)]
    with passing_stack([str(folder), *flags], environment=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}) as running:
        client = OpenAI(base_url=f"{running.url}/v1", api_key="unused", timeout=120, max_retries=0)
        yield client, folder, running, request.param


def test_every_family(tiny, tmp_path):
    """One test per family, as each starts a server of its own."""
    client, folder, stack, family = tiny
    for question in QUESTIONS:
        check_greedy(client, folder, question, torch.float32)
    check_tokens(client, folder, QUESTIONS[2])
    if family == SPECULATIVE:
        check_drafts(stack.url)
    elif folder.name.startswith("qwen3"):
        check_reasoning_budget(client)
    if family == SHARED:
        asyncio.run(check_shared(stack))
    if folder.name.startswith(EVALUATED):
        check_evaluations(stack.url, stack.model_names[0], folder, tmp_path)
