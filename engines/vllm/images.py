# SPDX-License-Identifier: Apache-2.0
"""Build vLLM's multimodal input from images, for a model with its own vision tower.

It replaces vLLM's image processor, so that the prompt's ids stay exactly the request's and the request's hashes key the
caches.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from vllm.config import ModelConfig
from vllm.inputs.engine import mm_input
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange

from common.errors import RequestError
from engines.engine import Generation


@dataclass(frozen=True, slots=True)
class ImageModel:
    """How a model takes its images.

    token_id: the image token; each image has `tokens_per_image` of them in the prompt. image_size: pixels of a side.
    fields: makes the model's inputs from normalised images [n, 3, image_size, image_size], and says how vLLM splits
    them by image.
    """

    token_id: int
    tokens_per_image: int
    image_size: int
    dtype: torch.dtype
    fields: Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], dict[str, MultiModalFieldConfig]]]

    def prompt(self, generation: Generation) -> dict[str, Any]:
        """Build vLLM's multimodal engine input for a generation with images.

        Raises RequestError if the images do not match their places in the prompt.
        """
        images = generation.images
        assert images is not None  # nosec B101 # narrows a type, checks no input
        if images.shape[1:] != (self.image_size, self.image_size, 3):
            size = self.image_size
            raise RequestError(f"images must be [n, {size}, {size}, 3], not {list(images.shape)}", param="images")
        offsets = self.check_places(generation.prompt_ids, len(images))
        return self._input(generation.prompt_ids, images, offsets, generation.prompt_extra_ids)

    def blank(self) -> dict[str, Any]:
        """Build the input of a prompt of one white image, by which vLLM sizes its caches."""
        images = torch.full((1, self.image_size, self.image_size, 3), 255, dtype=torch.uint8)
        return self._input([self.token_id] * self.tokens_per_image, images, [0], None)

    def _input(
        self, prompt_ids: list[int], images: torch.Tensor, offsets: list[int], extra_ids: list[int] | None
    ) -> dict[str, Any]:
        data, config = self.fields(_normalise(images, self.dtype))
        return dict(
            mm_input(
                prompt_ids,
                MultiModalKwargsItems.from_hf_inputs(data, config),  # type: ignore[arg-type] # any mapping does
                {"image": _cache_keys(images, offsets, extra_ids)},
                {"image": [PlaceholderRange(offset, self.tokens_per_image) for offset in offsets]},
            )
        )

    def check_places(self, prompt_ids: list[int], images: int) -> list[int]:
        """Find the first position of each image's run of image tokens.

        Raises RequestError unless there are `images` runs of the right length.
        """
        offsets, position = [], 0
        for is_image, run in groupby(prompt_ids, key=self.token_id.__eq__):
            length = sum(1 for _ in run)
            if is_image and length != self.tokens_per_image:
                raise RequestError(
                    f"{length} image tokens in a row in the prompt; a picture takes {self.tokens_per_image}",
                    param="input_ids",
                )
            if is_image:
                offsets.append(position)
            position += length
        if len(offsets) != images:
            raise RequestError(f"{images} images for {len(offsets)} image places in the prompt", param="images")
        return offsets


def image_model(config: ModelConfig) -> ImageModel | None:
    """How the served model takes images; None if it has no vision tower or the tower is switched off."""
    build, limits = IMAGE_MODELS.get(config.hf_config.model_type), config.multimodal_config
    return build(config) if build is not None and limits is not None and limits.get_limit_per_prompt("image") else None


def _gemma3(config: ModelConfig) -> ImageModel:
    hf = config.hf_config
    return ImageModel(
        hf.image_token_index,
        hf.mm_tokens_per_image,
        hf.vision_config.image_size,
        config.dtype,  # type: ignore[arg-type] # a torch.dtype in every finished configuration
        _gemma3_fields,
    )


def _gemma3_fields(pixels: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, MultiModalFieldConfig]]:
    """One patch per image: crops ("pan and scan") would need places in the prompt too."""
    patches = torch.ones(len(pixels), dtype=torch.int64)
    config = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", patches),
        "num_patches": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    return {"pixel_values": pixels, "num_patches": patches}, config


# model_type of config.json -> how the model takes images.
IMAGE_MODELS: dict[str, Callable[[ModelConfig], ImageModel]] = {"gemma3": _gemma3}


def _normalise(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn UINT8 [n, height, width, 3] to [n, 3, height, width] in -1..1; SigLIP has mean and std 0.5."""
    return (images.permute(0, 3, 1, 2).float() / 255 - 0.5).div_(0.5).to(dtype).contiguous()


def _cache_keys(images: torch.Tensor, offsets: list[int], extra_ids: list[int] | None) -> list[str]:
    """The request's hash at each image's first position, or else a hash of the pixels."""
    if extra_ids is not None and all(extra_ids[offset] for offset in offsets):
        return [f"{extra_ids[offset]:016x}" for offset in offsets]
    return [hashlib.blake2b(image.contiguous().numpy(), digest_size=16).hexdigest() for image in images]
