# SPDX-License-Identifier: Apache-2.0
"""Images as vLLM's multimodal input: places in the prompt, pixels, cache keys."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import RequestError
from engines.engine import Generation
from engines.vllm.images import image_model

TOKEN, PER_IMAGE, SIZE = 9, 4, 6
PROMPT = [1, 5, *[TOKEN] * PER_IMAGE, 6, *[TOKEN] * PER_IMAGE, 7]
OFFSETS = [2, 7]


@pytest.fixture
def gemma():
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
    return gemma.prompt(Generation(ids, 1, images=pictures, prompt_extra_ids=extra))


def test_images_are_normalised_and_at_their_places(gemma):
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


def test_caches_are_keyed_by_extra_ids_or_else_by_pixels(gemma):
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
def test_images_that_do_not_match_their_places_are_refused(gemma, ids, count, message):
    with pytest.raises(RequestError, match=message):
        prompt(gemma, images(*range(count)), ids)


def test_an_image_of_another_size_is_refused(gemma):
    with pytest.raises(RequestError, match=r"images must be \[n, 6, 6, 3\], not \[1, 6, 5, 3\]") as refused:
        prompt(gemma, images(1)[:, :, :5], [*[TOKEN] * PER_IMAGE])
    assert refused.value.param == "images"
