# SPDX-License-Identifier: Apache-2.0
"""Greedy answers of a stack, compared with those of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = [
    "What is the capital of France?",
    "你好，你是谁？",
    "List three colours, then say why the sky is blue. Keep it short. " * 4,
]
NEW_TOKENS = 24


def expected_ids(folder: Path, question: str, dtype: torch.dtype) -> tuple[list[int], int]:
    """Greedy ids by transformers, and the prompt's length."""
    tokenizer, model = _load(folder, dtype)
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
    return ids[0, len(prompt) :].tolist(), len(prompt)


_loaded: dict[Path, tuple[Any, Any]] = {}


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    if folder not in _loaded:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        # Sampling defaults of the checkpoint only warn under do_sample=False; tests run with warnings as errors.
        model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None
        _loaded.clear()
        _loaded[folder] = AutoTokenizer.from_pretrained(folder), model
    return _loaded[folder]


def answered(client: OpenAI, question: str, model: str) -> tuple[str, int, int]:
    """Content with reasoning and markup in place, completion tokens, and prompt tokens."""
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=NEW_TOKENS,
        extra_body={"skip_special_tokens": False},
    )
    return answer.choices[0].message.content, answer.usage.completion_tokens, answer.usage.prompt_tokens


def check_greedy(client: OpenAI, folder: Path, question: str, dtype: torch.dtype, name: str = "") -> None:
    """Check that a served model answers with the tokens of transformers. folder: its checkpoint. name: for requests."""
    ids, prompt_length = expected_ids(folder, question, dtype)
    tokenizer, model = _load(folder, dtype)
    ends = model.generation_config.eos_token_id
    visible = [token for token in ids if token not in (ends if isinstance(ends, list) else [ends])]
    text, completion_tokens, prompt_tokens = answered(client, question, name)
    assert prompt_tokens == prompt_length
    assert completion_tokens == len(ids)
    assert text == tokenizer.decode(visible)


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
