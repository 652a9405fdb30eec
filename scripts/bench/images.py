# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench images`: pictures per second on one core, from the encoded file to the model's input.

This project's decoding and tiling beside Hugging Face's processor for InternVL and vLLM's own, in one process on one
thread, in alternating rounds, by CPU time. The tiles are compared bit by bit first.
"""

import argparse
import hashlib
import io
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from common.command_line import Parser
from preprocessing.images import tiling
from preprocessing.images.decode import ImageLimits, decode_image
from scripts.bench import machine
from scripts.bench.errors import BenchError
from scripts.bench.options import positive
from scripts.bench.pictures import photo

TILE, MOST_TILES = 448, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Width, height: 13 tiles each, and one tile.
SIZES = ((1600, 1200), (640, 480), (448, 448))
OURS = "triton-chat"
_LIMITS = ImageLimits()

# From an encoded file to the pixels that the next process gets.
Prepare = Callable[[bytes], NDArray[Any]]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="triton-chat bench images", description=(__doc__ or "").partition("\n\n")[2], allow_abbrev=False
    )
    parser.add_argument("--pictures", type=positive, default=10, help="of each size and round (default: 10)")
    parser.add_argument("--rounds", type=positive, default=3, help="medians are over these (default: 3)")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench-images"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    options.line = shlex.join(["triton-chat", "bench", "images", *arguments])
    return options


def measure(options: argparse.Namespace) -> int:
    """Compare, measure, print and save; returns 1 if tiles differ. Raises BenchError if no other processor can run."""
    import torch

    torch.set_num_threads(1)
    processors, missing = available()
    for name, why in missing.items():
        print(f"{name} is left out: {why}", flush=True)
    files = files_of_all(options.pictures)
    different = differing(files, without=missing)
    print(f"tiles that differ from this project's: {', '.join(different) or 'none'}", flush=True)
    rounds = [
        {kind: {name: rate(prepare, files[kind]) for name, prepare in processors.items()} for kind in files}
        for _ in range(options.rounds)
    ]
    about = {
        "command": options.line,
        "machine": machine.hardware(),
        "versions": machine.versions(None) | {"pillow": PIL.__version__},
        "pictures": options.pictures,
        "left_out": missing,
    }
    text = table(rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {"about": about, "different": different, "rounds": rounds}
    (options.out / "images.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (options.out / "images.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nsaved in {options.out}")
    return 1 if different else 0


def available() -> tuple[dict[str, Prepare], dict[str, str]]:
    """The processors that can be run here, and the reasons why the others cannot."""
    processors: dict[str, Prepare] = {OURS: ours}
    missing: dict[str, str] = {}
    for name, make in (("hugging-face", hugging_face), ("vllm", vllm)):
        try:
            processors[name] = make()
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another build of torch
            missing[name] = str(error)
    if len(processors) == 1:
        raise BenchError(f"there is nothing to compare with: {missing}")
    return processors, missing


def files_of_all(count: int) -> dict[str, list[bytes]]:
    """Encoded pictures by size and format."""
    files = {f"JPEG {w} x {h}": [photo(seed, (w, h)) for seed in range(count)] for w, h in SIZES}
    return files | {f"PNG {w} x {h}": [_png(photo(seed, (w, h))) for seed in range(count)] for w, h in SIZES[1:2]}


def ours(data: bytes) -> NDArray[Any]:
    """Prepare a picture as this project does: uint8 tiles (the tower scales them) and a hash for the prefix cache."""
    hashlib.blake2b(data, digest_size=8).digest()
    image = decode_image(data, _LIMITS)
    columns, rows = tiling.grid(image.width, image.height, 1, MOST_TILES, TILE)
    return tiling.tiles(image, columns, rows, TILE, True)


def hugging_face(**changes: Any) -> Prepare:
    """Hugging Face's processor on Pillow, as InternVL checkpoints configure it: scaled float32."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    size = {"height": TILE, "width": TILE}
    settings = {"crop_to_patches": True, "min_patches": 1, "max_patches": MOST_TILES, "size": size}
    processor = GotOcr2ImageProcessorPil(**settings, image_mean=list(MEAN), image_std=list(STD), **changes)

    def prepare(data: bytes) -> NDArray[Any]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        pixels: NDArray[Any] = np.asarray(processor(image, return_tensors="np")["pixel_values"])
        return pixels

    return prepare


def vllm() -> Prepare:
    """Prepare as `vllm serve` does for InternVL: decode, tile, scale, convert to bfloat16.

    The hash of the pixels for vLLM's caches is left out, as its call differs between versions.
    """
    import torch

    pixels = vllm_pixels()

    def prepare(data: bytes) -> NDArray[Any]:
        return np.asarray(pixels(_decoded_by_vllm(data)).to(torch.bfloat16).view(torch.int16))

    return prepare


def vllm_pixels() -> Callable[[Image.Image], Any]:
    """vLLM's own function from a decoded picture to float32 [tiles, 3, height, width]."""
    from vllm.transformers_utils.processors.internvl import image_to_pixel_values_internvl

    def pixels(image: Image.Image) -> Any:
        return image_to_pixel_values_internvl(image, input_size=TILE, min_num=1, max_num=MOST_TILES, use_thumbnail=True)

    return pixels


def _decoded_by_vllm(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert("RGB")


def differing(files: Mapping[str, Sequence[bytes]], without: Mapping[str, str]) -> list[str]:
    """Processors and kinds of pictures whose tiles are not bit by bit this project's."""
    found = []
    plain = None if "hugging-face" in without else hugging_face(do_rescale=False, do_normalize=False)
    for kind, pictures in files.items():
        tiles = ours(pictures[0])
        if plain is not None and not np.array_equal(plain(pictures[0]).transpose(0, 2, 3, 1), tiles):
            found.append(f"hugging-face, {kind}")
        if "vllm" not in without:
            given = np.asarray(vllm_pixels()(_decoded_by_vllm(pictures[0])))
            if not np.array_equal(given, scaled(tiles)):
                found.append(f"vllm, {kind}")
    return found


def scaled(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale tiles as torchvision does, to 0..1 and then by mean and deviation; float32 [tiles, 3, height, width]."""
    pixels = np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
    return np.asarray((pixels - mean) / std, np.float32)


def rate(prepare: Prepare, pictures: Sequence[bytes]) -> float:
    """Pictures per second of CPU time, including the copy into the next process's memory."""
    given = prepare(pictures[0])
    place = np.empty(given.shape, given.dtype)
    begun = time.process_time()
    for data in pictures:
        np.copyto(place, prepare(data))
    return len(pictures) / (time.process_time() - begun)


def table(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown table: medians over rounds, and the ratios of this project's rate to the others."""
    names = list(next(iter(rounds[0].values())))
    others = [name for name in names if name != OURS]
    head = ["pictures/s of a core", *names, *(f"{OURS} / {name}" for name in others)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for kind in rounds[0]:
        middle = {name: median(each[kind][name] for each in rounds) for name in names}
        cells = [f"{middle[name]:.1f}" for name in names] + [
            f"**{middle[OURS] / middle[name]:.2f}**" for name in others
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _png(data: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "PNG")
    return file.getvalue()
