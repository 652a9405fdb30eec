# SPDX-License-Identifier: Apache-2.0
"""The manifest of an engine, and what it says when the engine is to be loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from scripts.shared.errors import ManifestError
from scripts.shared.manifest import NAME, Manifest, check, checkpoint_hash, read
from tests.support.engine_models import QWEN3_8B, checkpoint

VERSIONS = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", QWEN3_8B)


@pytest.fixture
def engine(tmp_path: Path, model: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "rank0.engine").write_bytes(b"plan")
    manifest(model).write(folder)
    return folder


def manifest(model: Path) -> Manifest:
    return Manifest(
        checkpoint=str(model),
        checkpoint_hash=checkpoint_hash(model),
        qformat="fp8",
        world_size=2,
        versions=VERSIONS,
        gpu="NVIDIA H200",
        compute="9.0",
        sizes={"max_batch_size": 16},
        parameters={},
        commands=[["trtllm-build"]],
        files={"config.json": 2, "rank0.engine": 4},
        made_by="triton-chat 1",
    )


def problem(engine: Path, model: Path, versions: dict = VERSIONS, gpus: tuple = ("9.0", "9.0")) -> str:
    with pytest.raises(ManifestError) as error:
        check(engine, model, versions, gpus)
    return str(error.value)


def test_what_was_written_is_read(engine: Path, model: Path) -> None:
    assert read(engine) == manifest(model)


def test_an_engine_that_fits(engine: Path, model: Path) -> None:
    assert check(engine, model, VERSIONS, ["9.0", "9.0", "9.0"]) == manifest(model)
    # Nothing is known of this machine, or of the folder's own copy elsewhere.
    moved = model.rename(model.with_name("moved"))
    assert check(engine, moved, {}, ()) is not None


def test_an_engine_without_a_manifest_is_not_judged(engine: Path, model: Path) -> None:
    (engine / NAME).unlink()
    assert check(engine, model, {"tensorrt_llm": "0.1"}, ()) is None


def test_what_does_not_fit_is_all_named(engine: Path, model: Path) -> None:
    (engine / "rank0.engine").write_bytes(b"pla")
    (model / "config.json").write_text(json.dumps(QWEN3_8B | {"vocab_size": 5}))
    message = problem(engine, model, {"tensorrt_llm": "1.1.0", "tensorrt": "10.14.1.48"}, ("8.9",))
    for words in (
        "rank0.engine has 3 bytes instead of 4",
        f"it was built from '{model}', and '{model}' is another checkpoint",
        "it was built with tensorrt_llm 1.2.1, and 1.1.0 is installed",
        "it runs on 2 GPUs, and there are 1",
        "it was built for GPUs of compute capability 9.0 (NVIDIA H200), not 8.9",
    ):
        assert words in message
    assert "tensorrt 10" not in message


def test_a_missing_part_is_named(engine: Path, model: Path) -> None:
    (engine / "rank0.engine").unlink()
    assert "rank0.engine is missing" in problem(engine, model)
    (engine / "config.json").unlink()
    assert "is not an engine's folder: it has no config.json" in problem(engine, model)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ('{"format": 2}', "is not of format 1. Build the engine again."),
        ('{"format": 1}', "must have exactly the keys checkpoint, checkpoint_hash,"),
    ],
)
def test_a_manifest_that_cannot_be_read(text: str, words: str, engine: Path, model: Path) -> None:
    (engine / NAME).write_text(text)
    assert words in problem(engine, model)


def test_the_hash_is_of_contents_not_of_places(model: Path, tmp_path: Path) -> None:
    first = checkpoint_hash(model)
    assert checkpoint_hash(checkpoint(tmp_path / "copy", QWEN3_8B)) == first
    (model / "README.md").write_text("other")
    assert checkpoint_hash(model) == first
    weights = np.zeros((8, 8), np.float16)
    weights[-1, -1] = 1
    save_file({"w": weights}, model / "model.safetensors")
    assert checkpoint_hash(model) != first


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_hash_sees_both_ends_of_a_large_file(place: str, model: Path) -> None:
    values = np.zeros(2**21, np.float16)
    save_file({"w": values}, model / "model.safetensors")
    before = checkpoint_hash(model)
    values[0 if place == "first" else -1] = 1
    save_file({"w": values}, model / "model.safetensors")
    assert checkpoint_hash(model) != before
