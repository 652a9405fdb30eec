# SPDX-License-Identifier: Apache-2.0
"""Write the vision tower of a split checkpoint as ONNX, for `triton-chat build vit`.

The file, `vision/model.onnx`, runs in onnxruntime as it is (`TRITON_CHAT_VIT_RUNTIME=onnxruntime`), and NVIDIA's
trtexec builds an engine for `TRITON_CHAT_VIT_RUNTIME=tensorrt` from it, for tiles of 448 pixels:

    trtexec --onnx=vision/model.onnx --saveEngine=vision/model.plan --bf16 \\
        --minShapes=tiles:1x448x448x3 --optShapes=tiles:13x448x448x3 --maxShapes=tiles:32x448x448x3

Input `tiles` uint8 [n, s, s, 3] with any n, output `embeddings` float [n, tokens, llm_hidden]. Needs the packages onnx
and onnxruntime.
"""

import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from scripts.cache import REPOSITORY

NAME, DATA = "model.onnx", "model.onnx.data"
INPUT, OUTPUT = "tiles", "embeddings"
OPSET = 18
# Tile counts to compare at: one that the export did not see among them.
CHECKED_COUNTS = (1, 2, 3)
# Largest difference, as a share of the largest value: sums in another order, through up to 45 layers.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
# A protobuf file holds 2 GiB; larger weights go into a file beside it.
PROTOBUF_LIMIT = 2**31


def export(model: Path, dtype: str = "float32") -> Path:
    """Export, compare with torch, and only then put the file in place; returns its path.

    Raises ValueError where the folder has no tower or where onnxruntime's numbers are not torch's.
    """
    vision = model / "vision"
    with tempfile.TemporaryDirectory(dir=vision if vision.is_dir() else None, prefix=".export-") as folder:
        tower, size = _load(vision, dtype)
        path = Path(folder) / NAME
        _trace(tower, size, path)
        _check(tower, size, path, TOLERANCE[dtype])
        # The data first: a reader of the new model.onnx must find it.
        for name in (DATA, NAME):
            if (Path(folder) / name).exists():
                shutil.move(Path(folder) / name, vision / name)
    return vision / NAME


def _load(vision: Path, dtype: str) -> tuple[Any, int]:
    import torch

    # The towers live with the Triton model that runs them, whose folder has a number for a name.
    folder = str(REPOSITORY / "model_repository" / "vit" / "1")
    if folder not in sys.path:
        sys.path.append(folder)
    from towers import load_tower
    from weights import read_config

    return load_tower(vision, dtype, torch.device("cpu")), int(read_config(vision)["image_size"])


def _trace(tower: Any, size: int, path: Path) -> None:
    import onnx
    import torch

    large = sum(tensor.nbytes for tensor in tower.state_dict().values()) >= PROTOBUF_LIMIT
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = Path(folder) / NAME
        torch.onnx.export(
            tower,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            str(traced),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            opset_version=OPSET,
            # The other exporter wants the package onnxscript and gives the same graph here.
            dynamo=False,
        )
        onnx.save_model(onnx.load(traced), path, save_as_external_data=large, location=DATA)


def _check(tower: Any, size: int, path: Path, tolerance: float) -> None:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for count in CHECKED_COUNTS:
        tiles = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)
        with torch.inference_mode():
            expected = tower(tiles).float()
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: tiles.numpy()})[0]).float()
        difference = float((found - expected).abs().max() / expected.abs().max())
        if found.shape != expected.shape or not difference <= tolerance:
            raise ValueError(f"the exported tower differs from torch's at {count} tiles: by {difference:.1e}")
