# SPDX-License-Identifier: Apache-2.0
"""`triton-chat build vit`: the ONNX export of a vision tower and the TensorRT plan."""

import sys
from types import ModuleType

import pytest

from scripts.cli.main import main
from scripts.engine_build import export_vit
from scripts.engine_build.vit_plan import TileCounts
from tests.support.vision_towers import VARIANTS, write_internvit, write_siglip


def test_an_export_that_differs_is_not_put_in_place(tmp_path, monkeypatch):
    write_internvit(tmp_path, "300m")
    monkeypatch.setitem(export_vit.TOLERANCE, "float32", 0.0)
    with pytest.raises(ValueError, match="the exported tower differs from torch's at 1 tiles"):
        export_vit.export(tmp_path)
    assert sorted(path.name for path in (tmp_path / "vision").iterdir()) == ["config.json", "model.safetensors"]


def test_the_build_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["build", "vit", str(tmp_path)]) == 1
    assert "has no vision tower of its own (vision/config.json)" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_bfloat16_export_is_checked_in_float32(name, tmp_path):
    import onnx

    write_internvit(tmp_path, name)
    path = export_vit.export(tmp_path, "bfloat16")
    graph = onnx.load(path).graph
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16
    # The patch embedding stays in float32.
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert {onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT} <= kinds
    assert sorted(path.name for path in (tmp_path / "vision").iterdir()) == [
        "config.json",
        "model.onnx",
        "model.safetensors",
    ]


def test_a_bfloat16_export_that_differs_is_refused(tmp_path, monkeypatch):
    write_internvit(tmp_path, "300m")
    monkeypatch.setitem(export_vit.TOLERANCE, "float32", 0.0)
    with pytest.raises(ValueError, match="the exported tower differs from torch's at 1 tiles"):
        export_vit.export(tmp_path, "bfloat16")


def test_a_tower_that_torch_cannot_export_is_an_error(tmp_path):
    write_siglip(tmp_path)
    with pytest.raises(ValueError, match=r"torch cannot export this tower so .*: choose another --dtype"):
        export_vit.export(tmp_path, "bfloat16")


def test_a_plan_needs_tensorrt_and_counts_in_order(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["build", "vit", str(tmp_path), "--plan"]) == 1
    assert "tensorrt" in (error := capsys.readouterr().err) and "build in the image" in error
    assert main(["build", "vit", str(tmp_path), "--plan", "--min-tiles", "14"]) == 1
    assert "tile counts must be 1 <= min <= opt <= max, not 14, 13, 26" in capsys.readouterr().err


def test_a_plan_is_built_from_the_export(tmp_path, capsys, monkeypatch):
    asked = []

    def build_plan(package, onnx, plan, counts, progress):
        assert onnx.is_file()
        progress("building [1]", 1, 2)
        asked.append((package.__name__, plan, counts))

    write_internvit(tmp_path, "300m")
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setattr("scripts.cli.build.build_plan", build_plan)
    assert main(["build", "vit", str(tmp_path), "--plan", "--opt-tiles", "4", "--max-tiles", "8"]) == 0
    plan = tmp_path / "vision" / "model.plan"
    assert capsys.readouterr().out == f"{plan}\n"
    assert asked == [("tensorrt", plan, TileCounts(1, 4, 8))]
