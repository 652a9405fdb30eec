# SPDX-License-Identifier: Apache-2.0
"""The manifest of an engine, `triton_chat.json` in its folder: how it was built, checked before it is loaded."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scripts.shared.errors import ManifestError

NAME = "triton_chat.json"
FORMAT = 1
# Bytes that are hashed at each end of a weight file: the header, with every tensor's name and shape, and some weights.
# Training changes all weights, so that reading all of a hundred gigabytes at each start is not needed.
_SAMPLE = 2**20
_TEXTS = ("config.json", "tokenizer.json", "tokenizer.model")
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True)
class Manifest:
    """How an engine was built.

    checkpoint: the source folder. checkpoint_hash: see `checkpoint_hash`. world_size: number of GPUs. versions: of
    tensorrt_llm and others by package. gpu: its name. compute: its capability, such as "9.0". sizes: see Preset.
    parameters: that the config of the `tensorrt_llm` model must have. commands: of the build. files: size in bytes of
    each engine file.
    """

    checkpoint: str
    checkpoint_hash: str
    qformat: str
    world_size: int
    versions: dict[str, str]
    gpu: str
    compute: str
    sizes: dict[str, Any]
    parameters: dict[str, str]
    commands: list[list[str]]
    files: dict[str, int]
    made_by: str
    format: int = FORMAT

    def write(self, engine: Path) -> None:
        """Write the manifest to an engine's folder."""
        (engine / NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read(engine: Path) -> Manifest | None:
    """Read the manifest in an engine's folder; None if there is none.

    Raises ManifestError if it is not valid.
    """
    path = engine / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(f"'{path}' is not valid JSON: {error}. Build the engine again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ManifestError(f"'{path}' is not of format {FORMAT}. Build the engine again.")
    expected = {field.name for field in fields(Manifest)}
    if content.keys() != expected:
        raise ManifestError(f"'{path}' must have exactly the keys {', '.join(sorted(expected))}.")
    return Manifest(**content)


def check(
    engine: Path,
    checkpoint: Path,
    versions: Mapping[str, str],
    gpus: Sequence[str],
) -> Manifest | None:
    """Check that an engine may be loaded; returns its manifest, or None if it has none.

    checkpoint: the folder whose tokenizer is served with it. versions: installed ones by package. gpus: compute
    capability of each, such as "9.0". If versions or gpus are empty, they are unknown and not compared.
    Raises ManifestError naming everything that does not fit.
    """
    if not (engine / "config.json").is_file():
        raise ManifestError(f"'{engine}' is not an engine's folder: it has no config.json.")
    manifest = read(engine)
    if manifest is None:
        return None
    problems = [*_file_problems(manifest, engine), *_problems(manifest, checkpoint, versions, gpus)]
    if problems:
        raise ManifestError(f"the engine in '{engine}' does not fit: {'; '.join(problems)}.")
    return manifest


def checkpoint_hash(folder: Path) -> str:
    """Hash config and tokenizer, and the name, size, first and last mebibyte of each weight file."""
    digest = hashlib.sha256()
    for name in _TEXTS:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    for path in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"\0{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(size - _SAMPLE, 0))
            digest.update(file.read())
    return digest.hexdigest()


def _file_problems(manifest: Manifest, engine: Path) -> Iterator[str]:
    for name, size in manifest.files.items():
        path = engine / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} bytes instead of {size}"


def _problems(manifest: Manifest, checkpoint: Path, versions: Mapping[str, str], gpus: Sequence[str]) -> Iterator[str]:
    if checkpoint_hash(checkpoint) != manifest.checkpoint_hash:
        yield f"it was built from '{manifest.checkpoint}', and '{checkpoint}' is another checkpoint"
    # A plan works with one release of TensorRT, and the kernels in it with one release of TensorRT-LLM.
    for package in ("tensorrt_llm", "tensorrt"):
        built, here = manifest.versions.get(package), versions.get(package)
        if built and here and built != here:
            yield f"it was built with {package} {built}, and {here} is installed"
    if gpus and len(gpus) < manifest.world_size:
        yield f"it runs on {manifest.world_size} GPUs, and there are {len(gpus)}"
    other = sorted(set(gpus) - {manifest.compute})
    if other:
        yield f"it was built for GPUs of compute capability {manifest.compute} ({manifest.gpu}), not {', '.join(other)}"
