# SPDX-License-Identifier: Apache-2.0
"""Prompts for vLLM: ids, rows of an embedding table, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from common.errors import RequestError
from engines.engine import Generation
from engines.vllm.prompt import Prompts


async def test_unsupported_inputs_are_refused():
    model = SimpleNamespace(
        get_vocab_size=lambda: 100, enable_prompt_embeds=False, hf_config=SimpleNamespace(model_type="qwen3"),
        multimodal_config=None,
    )  # fmt: skip
    prompts = Prompts(SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(policy="fcfs")))
    assert await prompts.build(Generation([1], 1)) == {"type": "token", "prompt_token_ids": [1]}
    for fields, message in (
        ({"images": torch.zeros(1, 6, 6, 3, dtype=torch.uint8)}, "takes no images"),
        ({"prompt_table": torch.zeros(1, 8)}, "takes no prompt embeddings"),
        ({"priority": 1}, "priority is not supported"),
    ):
        with pytest.raises(RequestError, match=message):
            await prompts.build(Generation([1], 1, **fields))


async def test_ids_past_the_vocabulary_are_rows_of_the_table():
    model = SimpleNamespace(
        get_vocab_size=lambda: 100, enable_prompt_embeds=True, hf_config=SimpleNamespace(model_type="qwen3"),
        multimodal_config=None,
    )  # fmt: skip
    prompts = Prompts(SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(policy="fcfs")))
    table = torch.arange(1, 9, dtype=torch.bfloat16).view(4, 2)
    built = await prompts.build(Generation([99, 102, 7, 100, 103], 1, prompt_table=table))
    # Zeros at the positions of ids: prompts with the same beginning share prefix cache blocks, whatever their tables.
    assert built["prompt_embeds"].tolist() == [[0, 0], [5, 6], [0, 0], [1, 2], [7, 8]]
    assert built["prompt_token_ids"] == [99, 0, 7, 0, 0]
    assert [bool(flag) for flag in built["is_token_ids"]] == [True, False, True, False, False]
    unused = await prompts.build(Generation([1, 2], 1, prompt_table=table[:0]))
    assert unused["prompt_embeds"].tolist() == [[0, 0], [0, 0]]
    for wrong, rows in (([1, 104], table), ([100], table[:0])):
        with pytest.raises(RequestError, match=f"past the table's {len(rows)} rows"):
            await prompts.build(Generation(wrong, 1, prompt_table=rows))
