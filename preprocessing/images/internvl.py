# SPDX-License-Identifier: Apache-2.0
"""InternVL2.5 images: tiles for the model `vit`, whose embeddings the prompt refers to by ids beyond the vocabulary."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from common.chat.messages import join_texts
from common.chat.parts import Content, MediaPart, Picture, Placed
from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from preprocessing.images import tiling
from preprocessing.images.family import MediaOptions, TiledImages, extra_id

# The markers that users write in a text to place an image or a video.
IMAGE, VIDEO = "<image>", "<video>"
_IMAGES, _IMAGES_AND_VIDEOS = re.compile(IMAGE), re.compile(f"{IMAGE}|{VIDEO}")


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The values of `vision/config.json` that preprocessing needs.

    tile: side of a tile in pixels. tokens_per_tile: rows of the prompt embedding table per tile.
    """

    tile: int
    tokens_per_tile: int
    min_tiles: int
    max_tiles: int
    thumbnail: bool
    image_start: str
    image_token: str
    image_end: str

    @classmethod
    def read(cls, config: dict[str, Any]) -> "VisionConfig":
        """Read the parsed file; raises ValueError naming a missing key."""
        try:
            side = config["image_size"] // config["patch_size"] * config["downsample_ratio"]
            return cls(
                tile=config["image_size"],
                tokens_per_tile=int(side * side),
                min_tiles=config["min_dynamic_patch"],
                max_tiles=config["max_dynamic_patch"],
                thumbnail=config["use_thumbnail"],
                image_start=config["image_start"],
                image_token=config["image_token"],
                image_end=config["image_end"],
            )
        except KeyError as error:
            raise ValueError(f"vision/config.json has no {error}") from None


class InternVLImages(TiledImages):
    """InternVL2.5: an image becomes up to max_tiles tiles and a thumbnail, a video frame one tile."""

    tensor = "tiles"
    spelled = (IMAGE,)
    taken = ("min_dynamic_patch", "max_dynamic_patch", "dynamic_image_size")

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, config: dict[str, Any]
    ) -> None:
        self._vision = VisionConfig.read(config)
        token_id = tokenizer.token_id(self._vision.image_token)
        if token_id is None:
            raise ValueError(f"tokenizer: '{checkpoint.path}' has no token {self._vision.image_token}")
        super().__init__(options, token_id)
        self._first_row = checkpoint.vocab_size
        self._max_tiles = options.max_tiles_per_image or self._vision.max_tiles
        # One token per image until `expand`; tokens between the outer two do not change how those are tokenized.
        self.tokens = (self._vision.image_start, self._vision.image_token, self._vision.image_end)
        self.marker = f"{self._vision.image_start}{self._vision.image_token}{self._vision.image_end}"
        # No client can write it, as the tokens that they spell stay text.
        self.video_marker = f"{self._vision.image_start}{self._vision.image_end}"

    def place(self, content: Content, where: str) -> Placed:
        text = join_texts(content)
        parts = tuple(part for part in content if isinstance(part, MediaPart))
        kinds = [part.kind for part in parts]
        # Without a video part <video> is ordinary text, such as HTML; so are markers that are not those of the parts.
        markers = _IMAGES_AND_VIDEOS if "video" in kinds else _IMAGES
        if [marker[1:-1] for marker in markers.findall(text)] == kinds:
            written = {IMAGE: self.marker, VIDEO: self.video_marker}
            return Placed(markers.sub(lambda found: written[found[0]], text), parts)
        lines = (f"{self.video_marker if kind == 'video' else self.marker}\n" for kind in kinds)
        return Placed("".join(lines) + text, parts)

    def place_spelled(self, content: Content, where: str) -> Placed:
        text = join_texts(content)
        return Placed(text.replace(IMAGE, self.marker), (MediaPart(),) * text.count(IMAGE))

    def _run(self, row: int, length: int) -> Sequence[int]:
        return range(self._first_row + row, self._first_row + row + length)

    def _cut(self, image: Image.Image, part: MediaPart, options: Mapping[str, Any], digest: hashlib.blake2b) -> Picture:
        vision, columns, rows = self._vision, 1, 1
        # One tile per video frame, as in the family's video examples.
        if part.kind == "image" and part.detail != "low" and options.get("dynamic_image_size", True):
            least = options.get("min_dynamic_patch", vision.min_tiles)
            most = options.get("max_dynamic_patch", self._max_tiles)
            columns, rows = tiling.grid(image.width, image.height, min(least, most), most, vision.tile)
        pixels = tiling.tiles(image, columns, rows, vision.tile, vision.thumbnail)
        return Picture(pixels, (len(pixels) * vision.tokens_per_tile,), (extra_id(digest),))
