# SPDX-License-Identifier: Apache-2.0
"""The pooling adapter of vLLM in this process, against transformers."""

import asyncio
import os
from contextlib import asynccontextmanager

import numpy as np
import pytest

from common.errors import RequestError
from engines.options import EngineOptions
from engines.pooling import PoolingRequest
from tests.support.pooling_checkpoints import (
    TEXTS,
    embeddings_of,
    make_bert,
    make_cross_encoder,
    make_qwen3_embedding,
    scores_of,
)

# Both compute in float32; the sums are taken in another order.
TOLERANCE = 1e-5


@asynccontextmanager
async def running(folder, **passed):
    # vLLM reads these variables when it is imported.
    for name, value in {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}.items():
        os.environ.setdefault(name, value)
    from engines.vllm.pooling import VllmPooling

    engine = VllmPooling(EngineOptions("vllm", str(folder), {"dtype": "float32", "enforce_eager": True} | passed))
    await engine.start()
    try:
        yield engine
    finally:
        engine.shutdown()


@pytest.fixture(autouse=True)
def published_class():
    """vLLM's own class of a model that another test of this process may have served with prompt embeddings."""
    from vllm.model_executor.models.registry import ModelRegistry

    from engines.vllm import table_model

    architecture = "Qwen3ForCausalLM"
    if architecture in table_model._installed:
        ModelRegistry.register_model(architecture, f"vllm.model_executor.models.qwen3:{architecture}")
        table_model._installed.discard(architecture)


def close(got, expected):
    return np.allclose(got, expected, rtol=0, atol=TOLERANCE)


async def test_the_last_tokens_state_of_a_decoder(qwen3_tokenizer_dir, tmp_path):
    folder = make_qwen3_embedding(qwen3_tokenizer_dir, tmp_path / "qwen3")
    async with running(folder, max_model_len=64) as engine:
        expected = embeddings_of(folder, TEXTS, "last").numpy()
        pooled = await engine.pool(PoolingRequest(prompts=TEXTS))
        assert close(pooled.embeddings, expected)
        assert close(np.linalg.norm(pooled.embeddings, axis=1), 1)
        alone = [await engine.pool(PoolingRequest(prompts=[text])) for text in TEXTS]
        assert close(np.concatenate([one.embeddings for one in alone]), expected)
        assert [one.num_input_tokens[0] for one in alone] == pooled.num_input_tokens

        ids = [[9707, 11, 1879], list(range(1000, 1040))]
        by_ids = await engine.pool(PoolingRequest(prompts=ids))
        assert close(by_ids.embeddings, embeddings_of(folder, ids, "last").numpy())
        assert by_ids.num_input_tokens == [3, 40]

        short = await engine.pool(PoolingRequest(prompts=TEXTS, dimensions=32))
        assert close(short.embeddings, embeddings_of(folder, TEXTS, "last", dimensions=32).numpy())
        with pytest.raises(RequestError) as refused:
            await engine.pool(PoolingRequest(prompts=TEXTS, dimensions=33))
        assert refused.value.param == "dimensions"

        long = [list(range(1000, 1065))]
        for prompt in (long, ["word " * 100], ["word " * 100_000]):
            with pytest.raises(RequestError) as refused:
                await engine.pool(PoolingRequest(prompts=[*TEXTS, *prompt]))
            assert refused.value.kind == "context_length"
        for limit, kept in ((-1, 64), (10, 10)):
            cut = await engine.pool(PoolingRequest(prompts=long, truncate_prompt_tokens=limit))
            assert cut.num_input_tokens == [kept]
            assert close(cut.embeddings, embeddings_of(folder, [long[0][:kept]], "last").numpy())
        with pytest.raises(RequestError) as refused:
            await engine.pool(PoolingRequest(prompts=long, truncate_prompt_tokens=65))
        assert refused.value.param == "truncate_prompt_tokens"
        with pytest.raises(RequestError) as refused:
            await engine.pool(PoolingRequest(prompts=[[151936]]))
        assert refused.value.param == "input_ids"

        scored = await engine.pool(PoolingRequest(prompts=TEXTS[:1], pairs=TEXTS[1:]))
        assert close(scored.scores, expected[1:] @ expected[0])
        assert sum(scored.num_input_tokens) == sum(pooled.num_input_tokens)
        both = await engine.pool(PoolingRequest(prompts=TEXTS[:2], pairs=TEXTS[2:4]))
        assert close(both.scores, (expected[:2] * expected[2:4]).sum(axis=1))

        many = [[1000 + one % 500] * 60 for one in range(2000)]
        task = asyncio.create_task(engine.pool(PoolingRequest(prompts=many)))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.statistics()["running"] == 0
        assert engine._llm.output_processor.get_num_unfinished_requests() == 0
        assert close((await engine.pool(PoolingRequest(prompts=TEXTS))).embeddings, expected)


@pytest.mark.parametrize(("pooling", "normalize"), [("cls", True), ("mean", False)])
async def test_an_encoder(pooling, normalize, tmp_path):
    folder = make_bert(tmp_path / "bert", pooling, normalize=normalize)
    async with running(folder) as engine:
        expected = embeddings_of(folder, TEXTS, pooling, normalize=normalize).numpy()
        pooled = await engine.pool(PoolingRequest(prompts=TEXTS))
        assert close(pooled.embeddings, expected)
        with pytest.raises(RequestError, match="Matryoshka") as refused:
            await engine.pool(PoolingRequest(prompts=TEXTS, dimensions=32))
        assert refused.value.param == "dimensions"


async def test_a_cross_encoder(tmp_path):
    folder = make_cross_encoder(tmp_path / "reranker")
    async with running(folder) as engine:
        pairs = [(TEXTS[0], other) for other in TEXTS[1:]]
        pooled = await engine.pool(PoolingRequest(prompts=TEXTS[:1], pairs=TEXTS[1:]))
        assert close(pooled.scores, scores_of(folder, pairs))
        with pytest.raises(RequestError, match="no embeddings"):
            await engine.pool(PoolingRequest(prompts=TEXTS))
        with pytest.raises(RequestError) as refused:
            await engine.pool(PoolingRequest(prompts=TEXTS[:1], pairs=["word " * 200]))
        assert refused.value.kind == "context_length"


async def test_a_chat_model_that_is_told_to_embed(smollm2_dir):
    async with running(
        smollm2_dir, convert="embed", pooler_config={"seq_pooling_type": "MEAN"}, max_model_len=256
    ) as engine:
        pooled = await engine.pool(PoolingRequest(prompts=TEXTS))
        assert close(pooled.embeddings, embeddings_of(smollm2_dir, TEXTS, "mean").numpy())
