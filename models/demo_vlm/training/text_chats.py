# SPDX-License-Identifier: Apache-2.0
"""Chats without pictures, with the original model's answers, to keep the adapted model close to it."""

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.demo_vlm.layout import PATCHES_PER_SIDE, TILE
from models.demo_vlm.training.dialogue import Encoder, Turn
from models.demo_vlm.training.feed import Batch, collate
from models.demo_vlm.training.generate import Prompt, answers
from models.demo_vlm.training.model import DemoModel
from models.demo_vlm.training.samples import Encoded

_NO_TILES = np.empty((0, TILE, TILE, 3), np.uint8)
_NO_LABELS = np.empty((0, 3, PATCHES_PER_SIDE, PATCHES_PER_SIDE), np.uint8)


def answered(model: DemoModel, encoder: Encoder, questions: Sequence[str], max_new_tokens: int = 80) -> list[Encoded]:
    """Answer the questions greedily with the original model; returns the encoded dialogues."""
    asked = [encoder.encode([Turn(question)])[0] for question in questions]
    with model.unchanged():
        made = answers(model, encoder, [Prompt(ids, _NO_TILES) for ids in asked], max_new_tokens)
    return [_dialogue(encoder, ids, new) for ids, new in zip(asked, made, strict=True)]


def _dialogue(encoder: Encoder, prompt: list[int], answer: list[int]) -> Encoded:
    ids = [*prompt, *answer, encoder.end_id]
    written = np.arange(len(ids)) >= len(prompt)
    return Encoded(np.array(ids, np.int32), written, _NO_TILES, _NO_LABELS)


def pick(rng: Random, encoder: Encoder, dialogues: Sequence[Encoded], number: int) -> Batch:
    """Build a batch of `number` random dialogues."""
    return collate(rng.sample(dialogues, min(number, len(dialogues))), encoder.image_id, encoder.end_id)


def drift(model: DemoModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compare the adapted model with the original.

    Returns (KL divergence of the next tokens, share of positions with the same most likely token).
    """
    with model.unchanged(), torch.no_grad():
        before = F.log_softmax(model.logits(batch)[0].float(), dim=-1)
    after = F.log_softmax(model.logits(batch)[0].float(), dim=-1)
    divergence = F.kl_div(after, before, log_target=True, reduction="batchmean")
    return divergence, (after.argmax(-1) == before.argmax(-1)).float().mean()
