# SPDX-License-Identifier: Apache-2.0
"""Generate answers with the PyTorch model, greedily."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.demo_vlm.training.dialogue import Encoder
from models.demo_vlm.training.model import DemoModel

MAX_NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Prompt:
    """An encoded prompt. ids: including image tokens. tiles: uint8 [tiles, side, side, 3], possibly empty."""

    ids: list[int]
    tiles: NDArray[np.uint8]


@torch.no_grad()
def answers(
    model: DemoModel, encoder: Encoder, prompts: Sequence[Prompt], max_new_tokens: int = MAX_NEW_TOKENS
) -> list[list[int]]:
    """Generate an answer to each prompt in one left-padded batch; returns the new ids without the end of turn."""
    device = next(model.parameters()).device
    length = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), length), encoder.end_id, dtype=torch.int64)
    mask = torch.zeros(len(prompts), length, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, length - len(prompt.ids) :] = 1
    embedded = model.embed(ids.to(device), _tiles(prompts).to(device), encoder.image_id)
    made = model.language.generate(
        inputs_embeds=embedded,
        attention_mask=mask.to(device),
        do_sample=False,
        temperature=None,
        top_p=None,
        max_new_tokens=max_new_tokens,
        eos_token_id=encoder.end_id,
        pad_token_id=encoder.end_id,
    ).tolist()
    return [row[: row.index(encoder.end_id)] if encoder.end_id in row else row for row in made]


def _tiles(prompts: Sequence[Prompt]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([prompt.tiles for prompt in prompts]))
