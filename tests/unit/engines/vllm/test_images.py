# SPDX-License-Identifier: Apache-2.0
"""How the vLLM adapter takes images: places in the prompt, cache keys, whole images in chunks, attention in parts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import RequestError

TOKEN, PER_IMAGE, SIZE = 9, 4, 6
PROMPT = [1, 5, *[TOKEN] * PER_IMAGE, 6, *[TOKEN] * PER_IMAGE, 7]
OFFSETS = [2, 7]


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")


@pytest.fixture
def gemma():
    from engines.vllm.images import image_model

    hf = SimpleNamespace(
        model_type="gemma3",
        image_token_index=TOKEN,
        mm_tokens_per_image=PER_IMAGE,
        vision_config=SimpleNamespace(image_size=SIZE),
    )
    limits = SimpleNamespace(get_limit_per_prompt=lambda modality: 999)
    return image_model(SimpleNamespace(hf_config=hf, multimodal_config=limits, dtype=torch.float32))


def images(*seeds: int) -> torch.Tensor:
    drawn = [np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for seed in seeds]
    return torch.from_numpy(np.stack(drawn))


def prompt(gemma, pictures: torch.Tensor, ids: list[int] = PROMPT, extra: list[int] | None = None) -> dict:
    from engines.engine import Generation

    return gemma.prompt(Generation(ids, 1, images=pictures, prompt_extra_ids=extra))


def test_pictures_stand_at_their_places_normalised(gemma):
    pictures = images(1, 2)
    result = prompt(gemma, pictures)
    assert result["type"] == "multimodal" and result["prompt_token_ids"] == PROMPT
    places = [(place.offset, place.length) for place in result["mm_placeholders"]["image"]]
    assert places == [(offset, PER_IMAGE) for offset in OFFSETS]
    for item, picture in zip(result["mm_kwargs"]["image"], pictures, strict=True):
        data = item.get_data()
        assert data["num_patches"].item() == 1
        expected = (picture.numpy().transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
        np.testing.assert_allclose(data["pixel_values"].numpy(), expected, atol=1e-6)


def test_extra_ids_key_the_caches_and_pixels_without_them(gemma):
    def keys(pictures: torch.Tensor, extra: list[int] | None = None) -> list[str]:
        return prompt(gemma, pictures, extra=extra)["mm_hashes"]["image"]

    extra = [0] * len(PROMPT)
    for offset, value in zip(OFFSETS, (2**64 - 1, 5), strict=True):
        extra[offset : offset + PER_IMAGE] = [value] * PER_IMAGE
    assert keys(images(1, 2), extra) == keys(images(3, 4), extra) == ["f" * 16, "0" * 15 + "5"]
    first, second = keys(images(1, 2))
    assert first != second
    assert keys(images(2, 1)) == [second, first]
    assert keys(images(1, 2), [0] * len(PROMPT)) == [first, second], "0 is no hash"


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        (PROMPT, 1, "1 images for 2 image places"),
        (PROMPT, 3, "3 images for 2 image places"),
        ([1, 2, 3], 1, "1 images for 0 image places"),
        ([1, *[TOKEN] * 3, 2], 1, "3 image tokens in a row in the prompt; a picture takes 4"),
        ([1, *[TOKEN] * 8, 2], 2, "8 image tokens in a row"),
    ],
)
def test_pictures_that_do_not_match_their_places_are_refused(gemma, ids, count, message):
    with pytest.raises(RequestError, match=message):
        prompt(gemma, images(*range(count)), ids)


def test_a_picture_of_another_size_is_refused(gemma):
    with pytest.raises(RequestError, match=r"images must be \[n, 6, 6, 3\], not \[1, 6, 5, 3\]") as refused:
        prompt(gemma, images(1)[:, :, :5], [*[TOKEN] * PER_IMAGE])
    assert refused.value.param == "images"


async def test_what_an_engine_does_not_take_is_refused():
    from engines.engine import Generation
    from engines.vllm.prompt import Prompts

    model = SimpleNamespace(
        get_vocab_size=lambda: 100, enable_prompt_embeds=False, hf_config=SimpleNamespace(model_type="qwen3"),
        multimodal_config=None,
    )  # fmt: skip
    prompts = Prompts(SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(policy="fcfs")))
    assert await prompts.build(Generation([1], 1)) == {"type": "token", "prompt_token_ids": [1]}
    for fields, message in (
        ({"images": images(1)}, "takes no images"),
        ({"prompt_table": torch.zeros(1, 8)}, "takes no prompt embeddings"),
        ({"priority": 1}, "priority is not supported"),
    ):
        with pytest.raises(RequestError, match=message):
            await prompts.build(Generation([1], 1, **fields))


async def test_ids_past_the_vocabulary_are_rows_of_the_table():
    from engines.engine import Generation
    from engines.vllm.prompt import Prompts

    model = SimpleNamespace(
        get_vocab_size=lambda: 100, enable_prompt_embeds=True, hf_config=SimpleNamespace(model_type="qwen3"),
        multimodal_config=None,
    )  # fmt: skip
    prompts = Prompts(SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(policy="fcfs")))
    table = torch.arange(1, 9, dtype=torch.bfloat16).view(4, 2)
    built = await prompts.build(Generation([99, 102, 7, 100, 103], 1, prompt_table=table))
    # Zeros where ids are: prompts that begin alike share blocks of vLLM's prefix cache whatever their tables.
    assert built["prompt_embeds"].tolist() == [[0, 0], [5, 6], [0, 0], [1, 2], [7, 8]]
    assert built["prompt_token_ids"] == [99, 0, 7, 0, 0]
    assert [bool(flag) for flag in built["is_token_ids"]] == [True, False, True, False, False]
    unused = await prompts.build(Generation([1, 2], 1, prompt_table=table[:0]))
    assert unused["prompt_embeds"].tolist() == [[0, 0], [0, 0]]
    for wrong, rows in (([1, 104], table), ([100], table[:0])):
        with pytest.raises(RequestError, match=f"past the table's {len(rows)} rows"):
            await prompts.build(Generation(wrong, 1, prompt_table=rows))


@pytest.mark.parametrize(
    ("computed", "new", "whole"),
    [
        (0, 12, 12),
        (0, 2, 2),  # just before the first picture
        (0, 3, 2),
        (0, 5, 2),
        (0, 6, 6),
        (2, 3, 0),  # at its start: wait for a step with room
        (2, 4, 4),
        (4, 1, 0),  # the first half came from the cache
        (4, 2, 2),
        (0, 8, 7),
        (6, 1, 1),
        (11, 1, 1),
    ],
)
def test_a_chunk_never_ends_inside_a_picture(computed, new, whole):
    from engines.vllm.scheduler import whole_images

    features = [SimpleNamespace(mm_position=SimpleNamespace(offset=offset, length=PER_IMAGE)) for offset in OFFSETS]
    assert whole_images(SimpleNamespace(mm_features=features), computed, new) == whole
    assert whole_images(SimpleNamespace(mm_features=None), computed, new) == new


@pytest.mark.parametrize(
    ("first", "end"), [(0, 12), (0, 2), (0, 6), (2, 6), (4, 6), (4, 12), (6, 7), (6, 11), (11, 12)]
)
def test_parts_see_what_the_tokens_of_a_chunk_may_see(first, end):
    from engines.vllm.cpu_worker import row_parts

    pictures = [(offset, offset + PER_IMAGE - 1) for offset in OFFSETS]
    queries, keys = np.arange(first, end)[:, None], np.arange(end)[None]
    expected = keys <= queries
    for start, last in pictures:
        expected |= (queries >= start) & (queries <= last) & (keys >= start) & (keys <= last)
    seen = np.zeros_like(expected)
    covered = []
    for start, stop, causal in row_parts(first, end, pictures):
        covered += range(start, stop)
        for query in range(start, stop):
            seen[query - first, : query + 1 if causal else stop] = True
    assert covered == list(range(first, end))
    np.testing.assert_array_equal(seen, expected)


def step_of(starts: list[int], ends: list[int], pictures: dict) -> Any:
    from vllm.v1.attention.backend import CommonAttentionMetadata

    return CommonAttentionMetadata(
        query_start_loc=torch.tensor(starts),
        query_start_loc_cpu=torch.tensor(starts),
        seq_lens=torch.tensor(ends),
        num_reqs=2,
        num_actual_tokens=starts[-1],
        max_query_len=starts[-1],
        max_seq_len=max(ends),
        block_table_tensor=torch.tensor([[1, 2], [3, 4]]),
        slot_mapping=torch.arange(starts[-1]),
        mm_req_doc_ranges=pictures,
    )


def test_a_step_is_attended_in_parts():
    from engines.vllm.cpu_worker import in_parts

    pictures = [(offset, offset + PER_IMAGE - 1) for offset in OFFSETS]
    # A decoding request of 20 tokens, then a prefill of tokens 2 to 12 whose first two are computed.
    step = step_of([0, 1, 11], [20, 12], {0: pictures, 1: pictures})
    parts = in_parts(step)
    assert parts.num_reqs == 5
    assert parts.query_start_loc.tolist() == [0, 1, 5, 6, 10, 11]
    assert parts.seq_lens.tolist() == [20, 6, 7, 11, 12]
    assert parts.causal.tolist() == [True, False, True, False, True]
    assert parts.block_table_tensor.tolist() == [[1, 2], *[[3, 4]] * 4]
    assert parts.max_query_len == 4
    decoding = step_of([0, 1, 2], [20, 13], {0: [], 1: pictures})
    assert in_parts(decoding) is decoding


def test_a_split_checkpoint_takes_prompt_embeddings_unless_told_otherwise(tmp_path):
    from engines.options import EngineOptions
    from engines.vllm.config import engine_args

    def takes_embeds(**passed: object) -> bool:
        return engine_args(EngineOptions("vllm", str(tmp_path), passed)).enable_prompt_embeds

    assert not takes_embeds()
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "config.json").write_text("{}", encoding="utf-8")
    assert takes_embeds()
    assert not takes_embeds(enable_prompt_embeds=False)
    with pytest.raises(ValueError, match="unknown engine option 'dtipe'"):
        takes_embeds(dtipe="half")
