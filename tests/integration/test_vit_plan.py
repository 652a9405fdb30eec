# SPDX-License-Identifier: Apache-2.0
"""The vision tower's plan, built without a GPU by `tensorrt_rtx`, whose builder is TensorRT's."""

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.engine_build import export_vit
from tests.support.vision_towers import write_internvit, write_internvit_300m

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache" / "rtx-venv" / "bin" / "python"


def build(onnx: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build a plan for a GPU of another machine."""
    line = [onnx, onnx.with_name("model.plan"), "--package", "tensorrt_rtx", "--compute", "8.9", *options]
    command = [PYTHON, "-m", "scripts.engine_build.vit_plan", *line]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def plan_of(onnx: Path, *options: str) -> Path:
    done = build(onnx, *options)
    assert done.returncode == 0, done.stderr
    assert " steps" in done.stderr
    return onnx.with_name("model.plan")


@pytest.mark.parametrize(("variant", "dtype"), [("300m", "float16"), ("6b", "bfloat16")])
def test_a_plan_holds_the_weights_in_their_type(variant: str, dtype: str, tmp_path: Path) -> None:
    write_internvit(tmp_path / "half", variant)
    write_internvit(tmp_path / "whole", variant)
    half = plan_of(export_vit.export(tmp_path / "half", dtype), "--opt-tiles", "2", "--max-tiles", "4")
    whole = plan_of(export_vit.export(tmp_path / "whole"), "--opt-tiles", "2", "--max-tiles", "4")
    assert half.stat().st_size < whole.stat().st_size
    assert not list(half.parent.glob(".*"))


def test_the_builders_refusal_is_reported(tmp_path: Path) -> None:
    import onnx

    write_internvit(tmp_path, "300m")
    path = export_vit.export(tmp_path)
    assert "tile counts must be 1 <= min <= opt <= max, not 1, 30, 26" in build(path, "--opt-tiles", "30").stderr
    graph = onnx.load(path)
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "rows"
    onnx.save(graph, path)
    assert "the graph takes ['tiles'] and must take 'tiles' and give 'embeddings'" in build(path).stderr
    path.write_bytes(b"no graph")
    done = build(path)
    assert done.returncode == 1
    assert f"error: TensorRT does not take '{path}'" in done.stderr
    assert not path.with_name("model.plan").exists()


# All 24 layers, 1.3 GB, take a hundred seconds and more; they are alike to the builder.
def test_a_sixth_of_internvit_300m_in_its_published_width(tmp_path: Path, monkeypatch) -> None:
    write_internvit_300m(tmp_path, layers=4)
    # A tile takes seconds here; the numbers are compared with small towers elsewhere.
    monkeypatch.setattr(export_vit, "CHECKED_COUNTS", ())
    plan = plan_of(export_vit.export(tmp_path), "--min-tiles", "1", "--opt-tiles", "13", "--max-tiles", "26")
    weights = (tmp_path / "vision" / "model.safetensors").stat().st_size
    assert weights > 0.2e9
    assert plan.stat().st_size > 0.99 * weights
    # pytest keeps the folders of its last runs.
    shutil.rmtree(tmp_path / "vision")
