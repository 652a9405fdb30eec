# SPDX-License-Identifier: Apache-2.0
"""Export the vision tower of a split checkpoint to ONNX, for `triton-chat build vit`.

The file, `vision/model.onnx`, runs in onnxruntime (`TRITON_CHAT_VIT_RUNTIME=onnxruntime`; bfloat16 only on GPUs), and
scripts/engine_build/vit_plan.py builds a plan for `TRITON_CHAT_VIT_RUNTIME=tensorrt` from it.

Input `tiles` uint8 [n, s, s, 3] with any n, output `embeddings` float [n, tokens, llm_hidden]. Requires the packages
onnx and onnxruntime.
"""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision.towers.tower import Tower

NAME, DATA = "model.onnx", "model.onnx.data"
INPUT, OUTPUT = "tiles", "embeddings"
OPSET = 18
# Tile counts of the comparison; the export is traced with two tiles.
CHECKED_COUNTS = (1, 2, 3)
# Largest difference relative to the largest value: sums are in another order, through up to 45 layers.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
# onnxruntime computes bfloat16 only on GPUs, so the same graph and weights are checked in float32.
BFLOAT16 = "bfloat16"
DTYPES = (*TOLERANCE, BFLOAT16)
# The limit of a protobuf file; larger weights go into a second file.
PROTOBUF_LIMIT = 2**31


def export(model: Path, dtype: str = "float32") -> Path:
    """Export the tower, compare it with torch, then put the file in place; returns its path.

    Raises ValueError if the folder has no tower or if onnxruntime's results differ from torch's.
    """
    vision = model / "vision"
    with tempfile.TemporaryDirectory(dir=vision if vision.is_dir() else None, prefix=".export-") as folder:
        tower, size = _load(vision, dtype)
        path = Path(folder) / NAME
        _trace(tower, size, path)
        if dtype == BFLOAT16:
            _check(tower.float(), size, widened(path), TOLERANCE["float32"])
        else:
            _check(tower, size, path, TOLERANCE[dtype])
        # The data first, as readers of the new model.onnx need it.
        for name in (DATA, NAME):
            if (Path(folder) / name).exists():
                shutil.move(Path(folder) / name, vision / name)
    return vision / NAME


def _load(vision: Path, dtype: str) -> "tuple[Tower, int]":
    import torch

    from vision.towers.registry import load_tower
    from vision.towers.weights import read_config

    return load_tower(vision, dtype, torch.device("cpu")), int(read_config(vision)["image_size"])


def _trace(tower: "Tower", size: int, path: Path) -> None:
    import onnx
    import torch

    large = sum(tensor.nbytes for tensor in tower.state_dict().values()) >= PROTOBUF_LIMIT
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = Path(folder) / NAME
        try:
            torch.onnx.export(
                tower,
                (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
                str(traced),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
                opset_version=OPSET,
                # The other exporter requires the package onnxscript and gives the same graph here.
                dynamo=False,
            )
        except RuntimeError as error:
            # Known case: SigLIP in bfloat16.
            raise ValueError(f"torch cannot export this tower so ({error}): choose another --dtype") from error
        onnx.save_model(onnx.load(traced), path, save_as_external_data=large, location=DATA)


def widened(path: Path) -> Path:
    """Write a copy of the graph with float32 in place of bfloat16; returns its path."""
    import numpy
    import onnx
    from onnx import TensorProto, numpy_helper

    narrow, wide = TensorProto.BFLOAT16, TensorProto.FLOAT
    model = onnx.load(path)
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for kind in (value.type.tensor_type for value in values):
        kind.elem_type = wide if kind.elem_type == narrow else kind.elem_type
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    for attribute in attributes:
        if attribute.name == "to" and attribute.i == narrow:
            attribute.i = wide
    constants = [attribute.t for attribute in attributes if attribute.HasField("t")]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type == narrow:
            numbers = numpy_helper.to_array(tensor).astype(numpy.float32)
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    target = path.with_name(f"wide-{NAME}")
    large = sum(tensor.ByteSize() for tensor in model.graph.initializer) >= PROTOBUF_LIMIT
    onnx.save_model(model, target, save_as_external_data=large, location=f"wide-{DATA}")
    return target


def _check(tower: "Tower", size: int, path: Path, tolerance: float) -> None:
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
