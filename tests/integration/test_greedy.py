# SPDX-License-Identifier: Apache-2.0
"""Greedy answers equal those of transformers, for the default model and for a tiny random model of each family."""

import os
from collections.abc import Iterator

import pytest
import torch
from openai import OpenAI

from scripts.launcher import FREE_PORTS, Stack
from tests.support.checkpoints import FAMILIES, make_checkpoint
from tests.support.evaluators import check_evaluations
from tests.support.gpu import memory_share
from tests.support.passing_stack import passing_stack
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
EVALUATED = "qwen2"


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


def check_tokens(client: OpenAI, folder: Path, question: str) -> None:
    """Ids and log-probabilities of prompts, whole and cut, are those of transformers, also of a prompt that is cached."""
    tokenizer, model = _load(folder, torch.float32)
    prompt = tokenizer(question)["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
    fields = {"return_token_ids": True, "prompt_logprobs": 2}
    for _ in range(2):
        answer = client.completions.create(model="", prompt=question, max_tokens=1, temperature=0, extra_body=fields)
        choice = answer.choices[0].model_extra
        assert choice["prompt_token_ids"] == prompt
        assert len(choice["token_ids"]) == 1
        first, *rows = choice["prompt_logprobs"]
        assert first is None
        assert len(rows) == len(prompt) - 1
        for token, row, all_of_it in zip(prompt[1:], rows, expected, strict=True):
            assert next(iter(row)) == str(token)
            assert len(row) in (2, 3)
            for name, one in row.items():
                assert one["logprob"] == pytest.approx(all_of_it[int(name)].item(), abs=1e-2)
                higher = (all_of_it > all_of_it[int(name)] + 1e-3).sum().item()
                lower = (all_of_it < all_of_it[int(name)] - 1e-3).sum().item()
                assert higher < one["rank"] <= len(all_of_it) - lower
    for side in ("left", "right"):
        tokenizer.truncation_side = side
        fields = {"return_token_ids": True, "truncate_prompt_tokens": 4, "truncation_side": side}
        answer = client.completions.create(model="", prompt=question, max_tokens=1, extra_body=fields)
        cut = tokenizer(question, truncation=True, max_length=4)["input_ids"]
        assert answer.choices[0].model_extra["prompt_token_ids"] == cut
        assert answer.usage.prompt_tokens == 4

    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids, _ = expected_ids(folder, question, torch.float32)
    fields = {"return_token_ids": True}
    chat = {"model": "", "messages": messages, "temperature": 0, "max_tokens": NEW_TOKENS, "extra_body": fields}
    whole = client.chat.completions.create(**chat)
    assert (whole.model_extra["prompt_token_ids"], whole.choices[0].model_extra["token_ids"]) == (prompt, ids)
    chunks = list(client.chat.completions.create(**chat, stream=True))
    streamed = [token for chunk in chunks for token in chunk.choices[0].model_extra.get("token_ids", ())]
    of_prompt = [chunk.model_extra["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk.model_extra]
    assert (of_prompt, streamed) == ([prompt], ids)
    logprobs = client.chat.completions.create(**chat | {"extra_body": {"prompt_logprobs": 0}}).model_extra
    assert [next(iter(row)) for row in logprobs["prompt_logprobs"][1:]] == [str(token) for token in prompt[1:]]


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
    flags = ["--dtype", "float32", "--max-model-len", "1024", *memory_share(0.3), *FREE_PORTS, *more]
    with passing_stack([str(folder), *flags], environment=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}) as running:
        client = OpenAI(base_url=f"{running.url}/v1", api_key="unused", timeout=120, max_retries=0)
        yield client, folder


def test_every_family(tiny, tmp_path):
    """One test per family, as each starts a server of its own."""
    client, folder = tiny
    for question in QUESTIONS:
        check(client, folder, question, torch.float32)
    check_tokens(client, folder, QUESTIONS[2])
    if folder.name.startswith("qwen3"):
        check_reasoning_budget(client)
    if WITH_ADAPTERS is not None and folder.name.startswith(WITH_ADAPTERS):
        check_adapters(client, folder, stack)
    if folder.name.startswith(EVALUATED):
        check_evaluations(stack.url, stack.model_names[0], folder, tmp_path)
