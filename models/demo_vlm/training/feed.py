# SPDX-License-Identifier: Apache-2.0
"""Training batches of samples with similar length, drawn by worker processes."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models.demo_vlm.training.dialogue import Encoder
from models.demo_vlm.training.samples import Encoded, draw, encode
from models.demo_vlm.training.scenes import SEEN_PAIRS

# Sequences are padded to multiples of this, so that few shapes occur.
_STEP = 64
# Share of the training over which simple samples become rarer, and the share of them that remains.
_EASY_UNTIL, _EASY_SHARE = 0.12, 0.08


@dataclass(frozen=True, slots=True)
class Batch:
    """A padded batch of encoded dialogues; without tiles if it is text only.

    ids: int64 [batch, length]. targets: int64 [n], the tokens to predict. target_index: int64 [n], the flat positions
    that predict them. tiles: uint8 [tiles, side, side, 3]. image_index: int64 [image tokens], the flat positions of
    their tokens. labels: uint8 [tiles, 3, patches, patches].
    """

    ids: Tensor
    targets: Tensor
    target_index: Tensor
    tiles: Tensor
    image_index: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device."""
        fields = (getattr(self, name) for name in self.__slots__)
        return Batch(*(field.to(device, non_blocking=True) for field in fields))

    def pin_memory(self) -> "Batch":
        """Copy the batch to page-locked memory; torch's loader calls this."""
        return Batch(*(getattr(self, name).pin_memory() for name in self.__slots__))


def collate(samples: list[Encoded], image_id: int, pad_id: int) -> Batch:
    """Build a batch, padded at the end: with causal attention no token attends to the padding."""
    length = _padded(max(len(sample.ids) for sample in samples))
    ids = np.full((len(samples), length), pad_id, np.int64)
    written = np.zeros((len(samples), length), bool)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        written[row, : len(sample.ids)] = sample.written
    targets = np.flatnonzero(written)
    flat = ids.reshape(-1)
    return Batch(
        ids=torch.from_numpy(ids),
        targets=torch.from_numpy(flat[targets]),
        target_index=torch.from_numpy(targets - 1),
        tiles=torch.from_numpy(np.concatenate([sample.tiles for sample in samples])),
        image_index=torch.from_numpy(np.flatnonzero(flat == image_id)),
        labels=torch.from_numpy(np.concatenate([sample.labels for sample in samples])),
    )


def _padded(length: int) -> int:
    return -(-length // _STEP) * _STEP


class Feed(IterableDataset[Batch]):
    """An endless stream of training batches; each worker draws its own samples."""

    def __init__(self, checkpoint: Path, tokens: int, seed: int) -> None:
        """Begin with no progress, the share of the training that is done.

        tokens: size of a batch, including padding.
        """
        self.progress: Any = multiprocessing.Value("d", 0.0)
        self._checkpoint, self._tokens, self._seed = checkpoint, tokens, seed

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        rng = Random(f"train {self._seed} {info.id if info else 0}")  # nosec B311 # no secret is drawn
        encoder = Encoder(self._checkpoint)
        waiting: dict[int, list[Encoded]] = {}
        while True:
            easy = max(1 - self.progress.value / _EASY_UNTIL, _EASY_SHARE)
            number = rng.choice((1, 2, 3, 4, 4, 5))
            sample = encode(encoder, draw(rng, SEEN_PAIRS, number, rng.random() < easy))
            length = _padded(len(sample.ids))
            alike = waiting.setdefault(length, [])
            alike.append(sample)
            if len(alike) * length >= self._tokens:
                yield collate(waiting.pop(length), encoder.image_id, encoder.end_id)


def loader(feed: Feed, workers: int, pinned: bool) -> "DataLoader[Batch]":
    """Create a loader with worker processes. pinned: whether batches are in page-locked memory."""
    return DataLoader(
        feed, batch_size=None, num_workers=workers, pin_memory=pinned, prefetch_factor=3 if workers else None
    )
