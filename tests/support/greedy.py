# SPDX-License-Identifier: Apache-2.0
"""Greedy answers of a stack, compared with those of transformers."""

from pathlib import Path
from typing import Any

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
