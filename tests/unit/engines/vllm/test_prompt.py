# SPDX-License-Identifier: Apache-2.0
"""Prompts for vLLM: plain ids, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from common.errors import RequestError
from engines.engine import Generation, Once
from engines.vllm.prompt import Prompts


async def test_a_table_is_taken_if_the_model_is_registered_for_it(monkeypatch):
    monkeypatch.setattr("engines.vllm.prompt.takes_tables", lambda config: True)
    model = SimpleNamespace(
        get_vocab_size=lambda: 100, get_hidden_size=lambda: 8, hf_config=SimpleNamespace(model_type="qwen3"),
        multimodal_config=None,
    )  # fmt: skip
    prompts = Prompts(SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(policy="fcfs")))
    table = torch.ones(1, 8)
    for extra_ids in (None, [0, 5]):
        built = await prompts.build(Generation([7, 100], 1, prompt_table=table, prompt_extra_ids=extra_ids))
        assert (built["type"], built["prompt_token_ids"]) == ("multimodal", [7, 99])
    with pytest.raises(RequestError, match="no log-probabilities"):
        await prompts.build(Generation([7, 100], 1, prompt_table=table, prompt_logprobs=1))


async def test_unsupported_inputs_are_refused():
    model = SimpleNamespace(
        get_vocab_size=lambda: 100, get_hidden_size=lambda: 8, hf_config=SimpleNamespace(model_type="qwen3"),
        architecture="Qwen3ForCausalLM", multimodal_config=None,
    )  # fmt: skip
    prompts = Prompts(SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(policy="fcfs")))
    assert await prompts.build(Generation([1], 1)) == {"type": "token", "prompt_token_ids": [1]}
    salted = await prompts.build(Generation([1], 1, cache_salt="x"))
    assert salted == {"type": "token", "prompt_token_ids": [1], "cache_salt": "x"}
    for fields, message in (
        ({"images": torch.zeros(1, 6, 6, 3, dtype=torch.uint8)}, "takes no images"),
        ({"prompt_table": torch.zeros(1, 8)}, "takes no prompt embeddings"),
        ({"multimodal": Once(torch.zeros(9, dtype=torch.uint8))}, "takes no features of pictures"),
        ({"priority": 1}, "priority is not supported"),
    ):
        with pytest.raises(RequestError, match=message):
            await prompts.build(Generation([1], 1, **fields))
