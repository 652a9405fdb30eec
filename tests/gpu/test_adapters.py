# SPDX-License-Identifier: Apache-2.0
"""Adapters on a GPU: greedy tokens of the base and two adapters in one batch equal those of PEFT, where they are clear.

In bfloat16, as vLLM's kernels of adapters take no float32.
"""

import asyncio
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from common.adapters import AdapterSource
from engines.adapters import AdapterOptions
from engines.engine import Generation
from engines.options import EngineOptions
from tests.support.adapters import make_adapter
from tests.support.checkpoints import make_checkpoint
from tests.support.engine_streams import stream_of

NEW_TOKENS = 6
# Differences of two logits below it may be decided by rounding.
ROUNDING = 0.3
PROMPTS = [[100 + 7 * number + step * step for step in range(90)] for number in range(64)]
NAMES = (None, "sql", "poet")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def clear_ids(base: Path, adapter: Path | None) -> list[list[int]]:
    """Greedy ids by transformers and PEFT for each prompt, up to the first that rounding may decide."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    ids = torch.tensor(PROMPTS)
    answer = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    best = torch.stack(answer.logits, dim=1).float().topk(2).values
    clear = (best[..., 0] - best[..., 1] >= ROUNDING).cumprod(dim=1).sum(dim=1).tolist()
    made = answer.sequences[:, ids.shape[1] :].tolist()
    return [row[:count] for row, count in zip(made, clear, strict=True)]


async def test_adapters_answer_as_with_peft(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    # vLLM finds its platform when it is imported.
    from engines.vllm.engine import VllmEngine

    base = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "qwen3")
    folders = {
        "sql": make_adapter(base, tmp_path / "sql", seed=1),
        "poet": make_adapter(base, tmp_path / "poet", seed=2),
    }
    expected = {name: clear_ids(base, folders.get(name or "")) for name in NAMES}
    # A random model is seldom sure, but of each there are enough clear tokens.
    assert all(sum(map(len, answers)) >= len(PROMPTS) // 2 for answers in expected.values())
    assert len({str(answers) for answers in expected.values()}) == len(NAMES)

    sources = tuple(AdapterSource(name, str(folder)) for name, folder in folders.items())
    passed = {"dtype": "bfloat16", "max_model_len": 512, "enable_lora": True, "max_loras": 2}
    engine = VllmEngine(EngineOptions("vllm", str(base), passed, AdapterOptions(sources)))
    await engine.start()
    try:
        assert engine.adapters is not None
        ids = {adapter.name: adapter.id for adapter in engine.adapters.all()}

        async def answer(name: str | None, prompt: list[int]) -> list[int]:
            generation = Generation(prompt, NEW_TOKENS, temperature=0.0, lora_task_id=ids.get(name or ""))
            return [token async for tokens in stream_of(engine, generation) for token in tokens.ids]

        asked = [(name, number) for number in range(len(PROMPTS)) for name in NAMES]
        answers = await asyncio.gather(*(answer(name, PROMPTS[number]) for name, number in asked))
        for (name, number), found in zip(asked, answers, strict=True):
            clear = expected[name][number]
            assert found[: len(clear)] == clear, (name, number)
    finally:
        engine.shutdown()
