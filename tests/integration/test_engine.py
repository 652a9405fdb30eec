# SPDX-License-Identifier: Apache-2.0
"""The vLLM adapter in this process: behaviour that no HTTP request reaches."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from common.adapters import AdapterSource
from common.errors import RequestError
from common.finish_reason import FinishReason
from engines.adapters import AdapterOptions
from engines.engine import Generation
from engines.options import EngineOptions
from tests.support.adapters import greedy_ids, make_adapter
from tests.support.checkpoints import make_checkpoint
from tests.support.engine_streams import stream_of
from tests.support.plain_adapter import write_adapter

VOCAB_SIZE = 151936
PROMPT = [9707, 11, 1879, 0, 3555, 374, 419, 30]


@pytest.fixture(params=[1, 2], ids=["one worker", "tensor parallel"])
def engine_options(request, tmp_path, qwen3_tokenizer_dir, monkeypatch):
    if request.param > 1:
        cores = sorted(os.sched_getaffinity(0))
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
    for name, value in {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    folder = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "qwen3")
    passed = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True, "enable_prompt_embeds": True}
    passed |= {"tensor_parallel_size": request.param, "enable_lora": True, "max_loras": 2, "block_size": 32}
    make_adapter(folder, tmp_path / "adapters" / "sql", seed=1)
    make_adapter(folder, tmp_path / "adapters" / "poet", seed=2, rank=4, targets=("q_proj", "down_proj"))
    sources = (AdapterSource("sql", str(tmp_path / "adapters" / "sql")),)
    yield EngineOptions("vllm", str(folder), passed, AdapterOptions(sources, (tmp_path / "adapters",)))


async def check_adapters(engine: Any, base: Path) -> None:
    """Each of three adapters answers as with PEFT, in one batch with the base, and shares no cached blocks."""
    folder = base.parent / "adapters"
    await engine.adapters.change({"load_adapter": "poet", "adapter_path": str(folder / "poet")})
    ids = {adapter.name: adapter.id for adapter in engine.adapters.all()}
    prompt = PROMPT * 9

    async def run(name: str | None, prompt_ids: list[int] = prompt, **more: Any) -> tuple[list[int], int | None]:
        answer, cached = [], None
        generation = Generation(
            prompt_ids, 12, temperature=0.0, lora_task_id=None if name is None else ids[name], **more
        )
        async for tokens in stream_of(engine, generation):
            answer += tokens.ids
            cached = tokens.cached_tokens if cached is None else cached
        return answer, cached

    names = (None, "sql", "poet")
    expected = [greedy_ids(base, name and folder / name, prompt, 12) for name in names]
    assert len({tuple(answer) for answer in expected}) == 3, "the adapters change the answer"
    for cached in (0, 64):
        assert await asyncio.gather(*map(run, names)) == [(answer, cached) for answer in expected]
    rows = [*prompt[:70], VOCAB_SIZE, *prompt[71:]]
    with safe_open(base / "model.safetensors", "pt") as weights:
        table = weights.get_tensor("model.embed_tokens.weight")[prompt[70:71]]
    assert (await run("sql", rows, prompt_table=table))[0] == expected[1], "rows of pictures work with adapters"

    with pytest.raises(RequestError, match="There is no adapter with the id 5"):
        async for _ in stream_of(engine, Generation(prompt, 1, lora_task_id=5)):
            pass
    # vLLM refuses what the headers do not show, and goes on serving.
    write_adapter(folder / "other", module="model.layers.0.self_attn.other_proj")
    with pytest.raises(RequestError, match="cannot be loaded"):
        await engine.adapters.change({"load_adapter": "other", "adapter_path": str(folder / "other")})
    # Unloaded while a request uses it: the request ends as it would have.
    stream = stream_of(engine, Generation(prompt, 12, temperature=0.0, lora_task_id=ids["poet"]))
    first = await anext(stream)
    await engine.adapters.change({"unload_adapter": "poet"})
    with pytest.raises(RequestError, match="no adapter"):
        await run("poet")
    assert first.ids + [token async for tokens in stream for token in tokens.ids] == expected[2]
    assert await run("sql") == (expected[1], 64)


async def test_the_engine(engine_options):
    """One test for all, as starting the engine takes most of the time."""
    # vLLM reads the variables above when it is imported.
    from engines.vllm.engine import VllmEngine

    engine = VllmEngine(engine_options)
    await engine.start()

    async def run(**fields) -> tuple[list[int], FinishReason]:
        ids, finish = [], None
        async for tokens in stream_of(engine, Generation(max_tokens=12, temperature=0.0, **fields)):
            ids += tokens.ids
            finish = tokens.finish
        return ids, finish

    try:
        plain, finish = await run(prompt_ids=PROMPT)
        assert len(plain) == 12 and finish is FinishReason.LENGTH

        with safe_open(Path(engine_options.model_path) / "model.safetensors", "pt") as weights:
            table = weights.get_tensor("model.embed_tokens.weight")[PROMPT[2:5]]
        rows = [*PROMPT[:2], VOCAB_SIZE, VOCAB_SIZE + 1, VOCAB_SIZE + 2, *PROMPT[5:]]
        assert (await run(prompt_ids=rows, prompt_table=table))[0] == plain, (
            "table rows give the same tokens as their ids"
        )
        other, _ = await run(prompt_ids=rows, prompt_table=torch.flip(table, [0]) * 3)
        assert other != plain, "another table is another prompt: no cached blocks are shared"
        with pytest.raises(RequestError, match="past the table"):
            await run(prompt_ids=[*PROMPT, VOCAB_SIZE + 3], prompt_table=table)

        assert await run(prompt_ids=PROMPT, stop_words=[plain[3:6]]) == (plain[:6], FinishReason.STOP_WORDS)
        late, _ = await run(prompt_ids=PROMPT, stop_words=[plain[3:6]], min_tokens=8)
        assert late[:8] == plain[:8], "several ids wait for min_tokens, as single ids do"
        assert await run(prompt_ids=PROMPT, end_id=plain[4]) == (
            plain[: plain.index(plain[4]) + 1],
            FinishReason.END_ID,
        )
        assert plain[0] not in (await run(prompt_ids=PROMPT, bad_words=[[plain[0]]]))[0]
        with pytest.raises(RequestError, match="priority"):
            await run(prompt_ids=PROMPT, priority=1)
        with pytest.raises(RequestError):
            await run(prompt_ids=PROMPT, guide_type="regex", guide="(unclosed")
        # A schema that the backend cannot do chooses no other backend for later requests.
        with pytest.raises(RequestError):
            await run(prompt_ids=PROMPT, guide_type="json_schema", guide='{"type": "integer", "multipleOf": 7}')
        await check_adapters(engine, Path(engine_options.model_path))
        choice = '{"type": "structural_tag", "format": {"type": "const_string", "value": "yes"}}'
        yes, _ = await run(prompt_ids=PROMPT, guide_type="structural_tag", guide=choice, end_id=151645)
        assert yes[-1] == 151645
        with pytest.raises(RequestError) as refused:
            await run(prompt_ids=PROMPT, min_tokens=13)
        assert (refused.value.kind, refused.value.param) == ("invalid_request", "min_tokens")
        statistics = engine.statistics()
        assert (statistics["running"], statistics["waiting"], statistics["kv_cache_usage"]) == (0, 0, 0)
        assert statistics["generated_tokens_total"] >= 12 and statistics["looked_up_prompt_tokens_total"] >= len(PROMPT)
    finally:
        engine.shutdown()
