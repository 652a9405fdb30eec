# SPDX-License-Identifier: Apache-2.0
"""The runtimes of `vit`: ONNX compared with torch, and errors at load."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from scripts.engine_build import export_vit
from tests.support.vision_towers import VARIANTS, random_tiles, write_internvit, write_siglip
from vision.options import VitOptions
from vision.runtimes.device import limit_threads
from vision.runtimes.onnx_runtime import find_providers
from vision.runtimes.registry import RUNTIMES, build_runtime
from vision.towers.registry import load_tower

# Tolerances relative to the largest value: float32 sums in another order; torch's rows are rounded to bfloat16 (2^-9).
FLOAT32, BFLOAT16 = 1e-3, 2**-8
WRITERS = {name: lambda folder, name=name: write_internvit(folder, name) for name in VARIANTS} | {
    "siglip": write_siglip
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """name -> a model folder with its vision/model.onnx."""
    folder = tmp_path_factory.mktemp("towers")
    for name, write in WRITERS.items():
        write(folder / name)
        export_vit.export(folder / name)
    return folder


def build(model: Path, runtime: str = "torch", **values: object):
    return build_runtime(VitOptions(runtime, model / "vision", **values))


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("count", [1, 4, 13])
def test_onnx_agrees_with_torch_at_any_tile_count(name, count, exported):
    tiles = random_tiles(count)
    with torch.inference_mode():
        exact = load_tower(exported / name / "vision", "float32", torch.device("cpu"))(tiles)
    onnx = build(exported / name, "onnxruntime").run(tiles)
    rows = build(exported / name).run(tiles)
    assert onnx.dtype == torch.float32 and difference(onnx, exact) < FLOAT32
    assert rows.dtype == torch.bfloat16 and difference(rows, exact) < BFLOAT16


def test_a_half_precision_export_agrees(exported, tmp_path):
    shutil.copytree(exported / "300m", tmp_path / "m")
    path = export_vit.export(tmp_path / "m", "float16")
    assert path == tmp_path / "m" / "vision" / "model.onnx"
    tiles = random_tiles(2)
    onnx = build(tmp_path / "m", "onnxruntime").run(tiles)
    assert onnx.dtype == torch.float16
    assert difference(onnx, build(tmp_path / "m").run(tiles)) < export_vit.TOLERANCE["float16"]


def test_large_weights_are_exported_to_a_second_file(exported, tmp_path, monkeypatch):
    shutil.copytree(exported / "300m", tmp_path / "m")
    monkeypatch.setattr(export_vit, "PROTOBUF_LIMIT", 1)
    export_vit.export(tmp_path / "m")
    assert (tmp_path / "m" / "vision" / "model.onnx.data").stat().st_size > 100_000
    tiles = random_tiles(2)
    assert difference(build(tmp_path / "m", "onnxruntime").run(tiles), build(tmp_path / "m").run(tiles)) < BFLOAT16


def test_an_unknown_runtime_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="unknown runtime 'openvino'; known: onnxruntime, tensorrt, torch"):
        build(tmp_path, "openvino")


@pytest.mark.parametrize(
    ("runtime", "package", "advice"),
    [
        ("tensorrt", "tensorrt", "install tensorrt, of the release that built the engine"),
        ("onnxruntime", "onnxruntime", "install onnxruntime"),
    ],
)
def test_a_missing_package_is_named(runtime, package, advice, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    # The runtime's own module may be imported already.
    monkeypatch.setitem(RUNTIMES, runtime, (package, "Runtime"))
    with pytest.raises(ValueError, match=f"runtime '{runtime}' needs a package .*{package}.*: {advice}"):
        build(tmp_path, runtime)


def test_a_missing_engine_file_says_how_to_write_it(tmp_path):
    write_internvit(tmp_path, "300m")
    with pytest.raises(
        ValueError, match=r"finds no '.*vision/model.onnx': write it with `triton-chat build vit FOLDER`"
    ):
        build(tmp_path, "onnxruntime")
    with pytest.raises(ValueError, match=r"finds no '/nowhere/x.onnx'"):
        build(tmp_path, "onnxruntime", engine_file=Path("/nowhere/x.onnx"))


def test_a_broken_engine_file_is_named(tmp_path):
    write_internvit(tmp_path, "300m")
    (tmp_path / "vision" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"onnxruntime cannot load '.*vision/model.onnx'"):
        build(tmp_path, "onnxruntime")


def test_a_graph_with_other_tensors_is_refused(exported, tmp_path):
    import onnx

    graph = onnx.load(exported / "300m" / "vision" / "model.onnx")
    for node in graph.graph.node:
        node.output[:] = ["rows" if name == "embeddings" else name for name in node.output]
    graph.graph.output[0].name = "rows"
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"other.onnx' has the tensors \['tiles', 'rows'\], not"):
        build(tmp_path, "onnxruntime", engine_file=tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:99", "there is no device 'cuda:99'"), ("tpu", "unknown device 'tpu'; known: auto, cpu, cuda")],
)
def test_a_missing_device_is_named(device, message, tmp_path):
    write_internvit(tmp_path, "300m")
    with pytest.raises(ValueError, match=message):
        build(tmp_path, device=device)


def test_onnxruntime_uses_the_gpu_if_its_build_can():
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    assert find_providers("auto", [cpu]) == [cpu]
    assert find_providers("cpu", [cuda, cpu]) == [cpu]
    assert find_providers("auto", [cuda, cpu]) == [(cuda, {"device_id": 0}), cpu]
    assert find_providers("cuda:1", [cuda, cpu]) == [(cuda, {"device_id": 1}), cpu]
    with pytest.raises(ValueError, match=r"no CUDAExecutionProvider for device 'cuda'.*install onnxruntime-gpu"):
        find_providers("cuda", [cpu])


@pytest.mark.parametrize(
    ("threads", "device", "taken"), [(None, "cpu", None), (3, "cpu", 3), (None, "cuda:1", 1), (2, "cuda", 2)]
)
def test_copies_for_a_gpu_wake_no_threads(threads, device, taken, monkeypatch):
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    limit_threads(VitOptions("torch", Path("/m/vision"), threads=threads), torch.device(device))
    assert counts == ([] if taken is None else [taken])
