# SPDX-License-Identifier: Apache-2.0
"""Paint scenes with Pillow, and label what each patch of a tile shows."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.demo_vlm.training import words
from models.demo_vlm.training.palette import COLORS
from models.demo_vlm.training.scenes import Scene, Word
from models.demo_vlm.training.shapes import SHAPES

# Number of classes of each label of a patch: shape (0: none), colour, character (0: none).
CLASSES = (len(SHAPES) + 1, len(COLORS), len(words.ALPHABET) + 1)
# The label map is smaller than the picture by this factor.
_SCALE = 4
_COLOR_INDEX = {name: index for index, name in enumerate(COLORS)}


def paint(scene: Scene, seed: int) -> Image.Image:
    """Paint the scene in RGB. seed: of its noise."""
    image = _background(scene)
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        draw.polygon(thing.outline, fill=thing.rgb, outline=thing.edge, width=max(1, round(thing.size / 20)))
    for word in scene.words:
        font = words.font(word.font, word.font_size)
        left, top, _, _ = font.getbbox(word.text)
        draw.text((word.x - left, word.y - top), word.text, fill=word.rgb, font=font)
    if scene.blur:
        image = image.filter(ImageFilter.GaussianBlur(scene.blur))
    return _noisy(image, scene.noise, seed) if scene.noise else image


def _background(scene: Scene) -> Image.Image:
    if scene.rgb == scene.rgb_end:
        return Image.new("RGB", (scene.width, scene.height), scene.rgb)
    ramp = np.linspace(scene.rgb, scene.rgb_end, scene.height).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(ramp[:, None], (scene.height, scene.width, 3))))


def _noisy(image: Image.Image, strength: float, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    grain = random.normal(0, strength, (image.height, image.width, 1)).astype(np.int16)
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def patch_labels(scene: Scene, columns: int, rows: int, thumbnail: bool, patches: int) -> NDArray[np.uint8]:
    """Label the centre of each patch with shape, colour and character: uint8 [tiles, 3, patches, patches]."""
    owners, lookup = _owners(scene)
    whole = lookup[:, _sampled(owners, columns * patches, rows * patches)]
    tiles = whole.reshape(3, rows, patches, columns, patches).transpose(1, 3, 0, 2, 4).reshape(-1, 3, patches, patches)
    if thumbnail and columns * rows > 1:
        small = lookup[:, _sampled(owners, patches, patches)]
        tiles = np.concatenate([tiles, small[None]])
    return np.ascontiguousarray(tiles)


def _sampled(owners: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    y = ((np.arange(down) + 0.5) * owners.shape[0] / down).astype(np.intp)
    x = ((np.arange(across) + 0.5) * owners.shape[1] / across).astype(np.intp)
    sampled: NDArray[np.uint8] = owners[y[:, None], x[None]]
    return sampled


def _owners(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns (uint8 map of the object at each pixel, 0 for the background; labels [3, objects])."""
    owners = Image.new("L", (-(-scene.width // _SCALE), -(-scene.height // _SCALE)))
    draw = ImageDraw.Draw(owners)
    rows = [(0, _COLOR_INDEX[scene.background], 0)]
    for thing in scene.things:
        draw.polygon([(x / _SCALE, y / _SCALE) for x, y in thing.outline], fill=len(rows))
        rows.append((1 + SHAPES.index(thing.shape), _COLOR_INDEX[thing.color], 0))
    for word in scene.words:
        for left, right, character in _letters(word):
            box = (left / _SCALE, word.y / _SCALE, right / _SCALE, (word.y + word.height) / _SCALE)
            draw.rectangle(box, fill=len(rows))
            rows.append((0, _COLOR_INDEX[word.color], 1 + words.ALPHABET.index(character)))
    return np.asarray(owners), np.array(rows, np.uint8).T


def _letters(word: Word) -> list[tuple[float, float, str]]:
    """List (left, right, character) of each letter, in pixels."""
    font = words.font(word.font, word.font_size)
    ends = [font.getlength(word.text[:count]) for count in range(len(word.text) + 1)]
    stretch = word.width / ends[-1]
    spans = zip(ends, ends[1:], word.text, strict=False)
    return [(word.x + start * stretch, word.x + end * stretch, character) for start, end, character in spans]
