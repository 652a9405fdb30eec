# SPDX-License-Identifier: Apache-2.0
"""Draw and encode samples: pictures, a dialogue about them, and the labels of their patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from models.demo_vlm.layout import MAX_TILES, MIN_TILES, PATCHES_PER_SIDE, TILE
from models.demo_vlm.training import multi_image, questions, scenes
from models.demo_vlm.training.dialogue import Encoder, Turn
from models.demo_vlm.training.painting import paint, patch_labels
from models.demo_vlm.training.scenes import Scene
from models.demo_vlm.training.skills import Pairs, Question
from preprocessing.images import tiling


@dataclass(frozen=True, slots=True)
class Sample:
    """One to three scenes with at least one question about them. seed: of the noise in the pictures."""

    scenes: tuple[Scene, ...]
    asked: tuple[Question, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample as the model takes it.

    ids: int32 [tokens]. written: bool [tokens], whether a token is part of an answer. tiles: uint8 [tiles, side, side,
    3]. labels: uint8 [tiles, 3, patches, patches].
    """

    ids: NDArray[np.int32]
    written: NDArray[np.bool_]
    tiles: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def draw(rng: Random, pairs: Pairs, number: int, simple: bool = False) -> Sample:
    """Draw a sample with up to `number` questions. pairs: possible things. simple: one thing in one picture."""
    while True:
        together = not simple and rng.random() < 0.2
        pictures = multi_image.scenes(rng, pairs) if together else [scenes.scene(rng, scenes.plan(rng, pairs, simple))]
        if not all(scene.things or scene.words for scene in pictures):
            continue
        ask = (
            multi_image.ask(rng, pictures, number, pairs)
            if together
            else questions.ask(rng, pictures[0], number, pairs)
        )
        if ask:
            return Sample(tuple(pictures), tuple(ask), rng.getrandbits(32))


def draw_unseen(rng: Random, number: int) -> Sample:
    """Draw a sample with one picture of (colour, shape) pairs that the training never shows."""
    while True:
        scene = scenes.scene(rng, scenes.plan(rng, tuple(sorted(scenes.HELD_OUT))))
        asked = questions.ask(rng, scene, number, scenes.PAIRS) if scene.things else []
        if asked:
            return Sample((scene,), tuple(asked), rng.getrandbits(32))


def cut(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[int]]:
    """Returns (tiles of all pictures, labels of their patches, number of tiles of each picture)."""
    tiles, labels = [], []
    for scene in sample.scenes:
        image = paint(scene, sample.seed)
        columns, rows = tiling.grid(scene.width, scene.height, MIN_TILES, MAX_TILES, TILE)
        tiles.append(tiling.tiles(image, columns, rows, TILE, True))
        labels.append(patch_labels(scene, columns, rows, True, PATCHES_PER_SIDE))
    return np.concatenate(tiles), np.concatenate(labels), [len(item) for item in tiles]


def encode(encoder: Encoder, sample: Sample) -> Encoded:
    """Encode the complete dialogue, including the answers."""
    tiles, labels, counts = cut(sample)
    turns: Sequence[Turn] = [Turn(item.text, item.answer) for item in sample.asked]
    ids, written = encoder.encode(turns, counts)
    return Encoded(np.array(ids, np.int32), np.array(written), tiles, labels)
