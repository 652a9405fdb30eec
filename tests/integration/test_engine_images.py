# SPDX-License-Identifier: Apache-2.0
"""Images in the vLLM adapter in this process: an engine with its own vision, and tables with a prefix cache."""

import asyncio
import math
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Gemma3ForConditionalGeneration

from common.errors import RequestError
from engines.engine import Engine, Generation
from engines.options import EngineOptions
from tests.support.checkpoints import make_checkpoint
from tests.support.engine_streams import stream_of
from tests.support.vlm_checkpoints import make_gemma3

NEW_TOKENS = 24
IMAGE_TOKEN = 262144
# As Gemma3Processor writes an image.
PLACE = "\n\n<start_of_image>" + "<image_soft_token>" * 256 + "<end_of_image>\n\n"
TEXT = "Once upon a time there was a small red fox who lived at the edge of a wide and quiet forest. "
# name -> (prompt, seeds of its pictures)
PROMPTS = {
    "text": ("Hello there, how are you?", []),
    "one": (f"{PLACE}What is this?", [1]),
    "other": (f"{PLACE}What is this?", [2]),
    "two": (f"{PLACE}and{PLACE}Compare.", [1, 3]),
    # Longer than the sliding window, so that a part of the image is outside it at the end.
    "middle": (f"{TEXT * 2}{PLACE}{TEXT * 20}", [4]),
}


def picture(seed: int) -> torch.Tensor:
    """A small picture of coloured squares, resized as by Gemma 3's processor: UINT8 [896, 896, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((640, 480), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(image.resize((896, 896), Image.Resampling.BILINEAR)))


def pictures(seeds: list[int]) -> torch.Tensor | None:
    return torch.stack([picture(seed) for seed in seeds]) if seeds else None


def reference(folder: Path) -> dict[str, list[int]]:
    """Greedy tokens of transformers; "causal" is "one" with causal attention between the image's tokens."""
    model = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def generate(name: str, *, causal: bool = False) -> list[int]:
        text, seeds = PROMPTS[name]
        ids, images = torch.tensor([prompt_ids(folder, text)]), pictures(seeds)
        with torch.no_grad():
            answer = model.generate(
                ids,
                pixel_values=None if images is None else (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5,
                token_type_ids=(ids == IMAGE_TOKEN).long() * (not causal),
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
            )
        return answer[0, ids.shape[1] :].tolist()

    return {"causal": generate("one", causal=True)} | {name: generate(name) for name in PROMPTS}


def prompt_ids(folder: Path, text: str) -> list[int]:
    turns = f"<bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(turns, add_special_tokens=False).ids


def extra_ids(ids: list[int], first: int) -> list[int]:
    """Extra ids: 0 for text, `first` for the first image's tokens, `first` + 1 for the second's."""
    extra, images = [], 0
    for before, token in pairwise([0, *ids]):
        images += token == IMAGE_TOKEN != before
        extra.append((first + images - 1) * (token == IMAGE_TOKEN))
    return extra


@dataclass
class Answer:
    ids: list[int] = field(default_factory=list)
    cached: int = 0


class Running:
    """A started engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def ask(self, ids: list[int], **fields: Any) -> Answer:
        answer = Answer()
        generation = Generation(prompt_ids=ids, max_tokens=NEW_TOKENS, temperature=0.0, **fields)
        async for tokens in stream_of(self.engine, generation):
            answer.ids += tokens.ids
            answer.cached = max(answer.cached, tokens.cached_tokens or 0)
        return answer


@pytest.fixture
async def start(monkeypatch) -> AsyncIterator[Any]:
    for name, value in {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    # vLLM reads these variables when it is imported.
    from engines.vllm.engine import VllmEngine

    engines = []

    async def start_engine(folder: Path, **passed: Any) -> Running:
        options = {"dtype": "float32", "enforce_eager": True, **passed}
        engines.append(VllmEngine(EngineOptions("vllm", str(folder), options)))
        await engines[-1].start()
        return Running(engines[-1])

    yield start_engine
    for engine in engines:
        engine.shutdown()


async def test_gemma3(tmp_path, gemma3_tokenizer_dir, start):
    """One test for all, as starting the engine takes most of the time."""
    folder = make_gemma3(tmp_path / "gemma3", gemma3_tokenizer_dir)
    expected = reference(folder)
    assert expected["one"] != expected["other"], "the tiny model depends on the image"
    assert expected["one"] != expected["causal"], "and its parts on each other"

    # A budget below two images: under load the scheduler meets chunks that would split one.
    running = await start(folder, max_model_len=2048, max_num_batched_tokens=300)
    ids = {name: prompt_ids(folder, text) for name, (text, _) in PROMPTS.items()}

    async def ask(name: str, **fields: Any) -> Answer:
        return await running.ask(ids[name], **{"images": pictures(PROMPTS[name][1]), **fields})

    # First concurrently, with nothing cached: the images of each copy have their own hash.
    order = list(PROMPTS) * 3
    together = await asyncio.gather(
        *(ask(name, prompt_extra_ids=extra_ids(ids[name], 10 * number)) for number, name in enumerate(order, start=1))
    )
    assert [answer.ids for answer in together] == [expected[name] for name in order]

    for name in PROMPTS:
        single = await ask(name)
        assert single.ids == expected[name], name
    # Without extra ids the pixels are the key. The first block of 128 tokens is within the image.
    again = await ask("one")
    assert again.ids == expected["one"] and again.cached >= 128
    fresh = await running.ask(ids["one"], images=pictures([5]))
    assert fresh.cached == 0 and fresh.ids not in (expected["one"], expected["other"])
    hashes = extra_ids(ids["one"], 777)
    assert (await ask("one", prompt_extra_ids=hashes)).cached == 0, "extra ids are the key if there are any"
    assert (await ask("one", prompt_extra_ids=hashes)).cached == again.cached

    with pytest.raises(RequestError, match="2 images for 1 image places"):
        await ask("one", images=pictures([1, 2]))
    with pytest.raises(RequestError, match="0 images for 2 image places"):
        await ask("two", images=None)
    statistics = running.engine.statistics()
    assert (statistics["running"], statistics["waiting"], statistics["kv_cache_usage"]) == (0, 0, 0)
    assert statistics["cached_prompt_tokens_total"] > 0


async def test_tables_share_the_prefix_cache_by_image(tmp_path, qwen3_tokenizer_dir, start):
    """Images of an InternVL are rows of a table from vit; the folder vision/ lets the language model take them."""
    folder = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "qwen3")
    (folder / "vision").mkdir()
    (folder / "vision" / "config.json").write_text("{}", encoding="utf-8")
    running = await start(folder, max_model_len=2048, max_num_batched_tokens=600)
    assert not running.engine._args.enable_prompt_embeds, "vLLM's own prompt embeddings need its older model runner"
    vocab_size = 151936
    text = list(range(1000, 1140))
    prompt = [*text, *range(vocab_size, vocab_size + 256), *range(2000, 2020)]
    torch.manual_seed(1)
    table, other = torch.randn(2, 256, 128) * 0.2

    def hashes(ids: list[int], first: int) -> list[int]:
        return [first * (token >= vocab_size) for token in ids]

    first = await running.ask(prompt, prompt_table=table, prompt_extra_ids=hashes(prompt, 9))
    again = await running.ask(prompt, prompt_table=table.clone(), prompt_extra_ids=hashes(prompt, 9))
    assert again.ids == first.ids
    assert first.cached == 0 and again.cached == math.floor((len(prompt) - 1) / 128) * 128
    different = await running.ask(prompt, prompt_table=other, prompt_extra_ids=hashes(prompt, 10))
    assert different.cached == 128, "the text before the image, and nothing of another image"
    assert different.ids != first.ids
    # Without extra ids the rows are the key.
    for rows, expected, cached in ((table, first, 128), (other, different, 128), (table, first, again.cached)):
        answer = await running.ask(prompt, prompt_table=rows)
        assert (answer.ids, answer.cached) == (expected.ids, cached)

    # A picture of many tiles, longer than a step and than what vLLM takes as one, then another one; all at once.
    many = [*text, *range(vocab_size, vocab_size + 1280), 7, *range(vocab_size + 1280, vocab_size + 1536), *text]
    tables = torch.randn(4, 1536, 128) * 0.2
    alone = [await running.ask(many, prompt_table=rows) for rows in tables]
    assert len({tuple(answer.ids) for answer in alone}) == 4
    together = await asyncio.gather(
        *(
            running.ask(many, prompt_table=rows, prompt_extra_ids=hashes(many, 100 + number))
            for number, rows in enumerate(tables)
        ),
        running.ask(text),
        running.ask(prompt, prompt_table=table, prompt_extra_ids=hashes(prompt, 9)),
    )
    assert [answer.ids for answer in together[:4]] == [answer.ids for answer in alone]
    assert together[5].ids == first.ids
    assert together[4].ids == (await running.ask(text)).ids

    with pytest.raises(RequestError, match="64 values, not 128"):
        await running.ask(prompt, prompt_table=table[:, :64])
    with pytest.raises(RequestError, match="takes no images"):
        await running.ask(text, images=pictures([1]))
