# SPDX-License-Identifier: Apache-2.0
"""Greedy answers equal those of transformers, for the default model and for a tiny random model of each family."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from openai import NotFoundError, OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.launcher import FREE_PORTS, Stack
from tests.support.adapters import greedy_ids, make_adapter
from tests.support.checkpoints import FAMILIES, make_checkpoint
from tests.support.gpu import memory_share
from tests.support.waiting import PATIENCE_S

# Of the default model, in bfloat16: each token is the likeliest by a factor of e at least, as CPUs round differently.
CLEAR = ["Please name the capital of France.", "Count from 1 to 10."]
QUESTIONS = [
    "What is the capital of France?",
    "你好，你是谁？",
    "List three colours, then say why the sky is blue. Keep it short. " * 4,
]
NEW_TOKENS = 24
# vLLM's kernels of adapters for GPUs compute in half precision only.
WITH_ADAPTERS = None if torch.cuda.is_available() else "llama"
ADMIN_KEY = "boss"


def expected_ids(folder: Path, question: str, dtype: torch.dtype) -> tuple[list[int], int]:
    """Greedy ids by transformers, and the prompt's length."""
    tokenizer, model = _load(folder, dtype)
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
    return ids[0, len(prompt) :].tolist(), len(prompt)


_loaded: dict[Path, tuple] = {}


def _load(folder: Path, dtype: torch.dtype) -> tuple:
    if folder not in _loaded:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        # Sampling defaults of the checkpoint only warn under do_sample=False; tests run with warnings as errors.
        model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None
        _loaded.clear()
        _loaded[folder] = AutoTokenizer.from_pretrained(folder), model
    return _loaded[folder]


def answered(client: OpenAI, question: str) -> tuple[str, int, int]:
    """Content with reasoning and markup in place, completion tokens, and prompt tokens."""
    answer = client.chat.completions.create(
        model="",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=NEW_TOKENS,
        extra_body={"skip_special_tokens": False},
    )
    return answer.choices[0].message.content, answer.usage.completion_tokens, answer.usage.prompt_tokens


def check(client: OpenAI, folder: Path, question: str, dtype: torch.dtype) -> None:
    ids, prompt_length = expected_ids(folder, question, dtype)
    tokenizer, model = _load(folder, dtype)
    ends = model.generation_config.eos_token_id
    visible = [token for token in ids if token not in (ends if isinstance(ends, list) else [ends])]
    text, completion_tokens, prompt_tokens = answered(client, question)
    assert prompt_tokens == prompt_length
    assert completion_tokens == len(ids)
    assert text == tokenizer.decode(visible)


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
    check(client, smollm2_dir, question, torch.bfloat16)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FAMILIES])
def tiny(request, tmp_path_factory, smollm2_dir, qwen3_tokenizer_dir, gemma3_tokenizer_dir) -> Iterator[tuple]:
    """Client and folder of a stack that serves one family's tiny random checkpoint in float32."""
    tokenizers = {"smollm2": smollm2_dir, "qwen3": qwen3_tokenizer_dir, "gemma3": gemma3_tokenizer_dir}
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(request.param, tokenizers[FAMILIES[request.param][0]], folder)
    adapters, more = folder / "adapters", []
    if request.param == WITH_ADAPTERS:
        make_adapter(folder, adapters / "sql", seed=1)
        make_adapter(folder, adapters / "poet", seed=2)
        more = ["--enable-lora", "--max-loras", "2", "--lora-modules", f"sql={adapters}/sql"]
        more += ["--allowed-lora-path", str(adapters), "--admin-key", ADMIN_KEY, "--frontends", "2"]
    # The default model's stack runs beside it.
    flags = ["--dtype", "float32", "--max-model-len", "1024", *memory_share(0.3), *FREE_PORTS, *more]
    with Stack([str(folder), *flags], environment=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}) as running:
        client = OpenAI(base_url=f"{running.url}/v1", api_key="unused", timeout=120, max_retries=0)
        yield client, folder, running


def check_adapters(client: OpenAI, folder: Path, stack: Stack) -> None:
    """Two adapters, one loaded while the server runs: answers as with PEFT, in one batch with those of the base."""
    base = stack.model_names[0]

    def change(path: str, **body: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx.post(f"{stack.url}/v1/{path}", json=body, headers=headers, timeout=PATIENCE_S)

    outside = change("load_lora_adapter", lora_name="poet", lora_path=str(folder))
    assert outside.status_code == 400 and "allowed_lora_path" in outside.text
    loaded = change("load_lora_adapter", lora_name="poet", lora_path=str(folder / "adapters" / "poet"))
    assert loaded.status_code == 200, loaded.text
    # Other frontends see it within a second.
    time.sleep(1)
    parents = {model.id: model.parent for model in client.models.list().data}
    assert parents == {base: None, "sql": base, "poet": base}

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.encode(QUESTIONS[2])
    paths = {base: None, "sql": folder / "adapters" / "sql", "poet": folder / "adapters" / "poet"}
    expected = {name: greedy_ids(folder, path, prompt, NEW_TOKENS) for name, path in paths.items()}
    assert len(set(map(tuple, expected.values()))) == 3

    def answer(name: str) -> list[str]:
        extra = {"ignore_eos": True, "skip_special_tokens": False}
        answer = client.completions.create(
            model=name, prompt=prompt, temperature=0, max_tokens=NEW_TOKENS, extra_body=extra
        )
        return answer.choices[0].text

    with ThreadPoolExecutor(9) as threads:
        answers = list(threads.map(answer, list(paths) * 3))
    assert answers == [tokenizer.decode(expected[name]) for name in paths] * 3

    assert change("unload_lora_adapter", lora_name="poet").status_code == 200
    time.sleep(1)
    with pytest.raises(NotFoundError):
        answer("poet")
    assert answer("sql") == tokenizer.decode(expected["sql"])


def test_every_family(tiny):
    """One test per family, as each starts a server of its own."""
    client, folder, stack = tiny
    for question in QUESTIONS:
        check(client, folder, question, torch.float32)
    if folder.name.startswith("qwen3"):
        check_reasoning_budget(client)
    if WITH_ADAPTERS is not None and folder.name.startswith(WITH_ADAPTERS):
        check_adapters(client, folder, stack)
