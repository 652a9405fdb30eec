# SPDX-License-Identifier: Apache-2.0
"""`triton_chat.json` in an engine's folder: how the engine was built, compared with what it is to be loaded with."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scripts.shared.errors import ManifestError

NAME = "triton_chat.json"
FORMAT = 1
# Read of each end of a weight file: the header with every tensor's name and shape, and weights. Training changes all
# weights, so a whole read of a hundred gigabytes at each start would say no more.
_SAMPLE = 2**20
_TEXTS = ("config.json", "tokenizer.json", "tokenizer.model")
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True)
class Manifest:
    """versions: of tensorrt_llm and others by package. gpu: name; compute: its capability, as "9.0".

    checkpoint: folder it was built from; checkpoint_hash: see `checkpoint_hash`. commands: what was run. sizes: what
    they were told, as Preset names it. parameters: of the `tensorrt_llm` model's config, to be served with.
    files: size in bytes of each engine file. world_size: GPUs.
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
        """Into an engine's folder."""
        (engine / NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read(engine: Path) -> Manifest | None:
    """The manifest of an engine's folder; None for an engine that was built without one.

    Raises ManifestError where it cannot be read.
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
    wanted = {field.name for field in fields(Manifest)}
    if content.keys() != wanted:
        raise ManifestError(f"'{path}' must have exactly the keys {', '.join(sorted(wanted))}.")
    return Manifest(**content)


def check(
    engine: Path,
    checkpoint: Path,
    versions: Mapping[str, str],
    gpus: Sequence[str],
) -> Manifest | None:
    """The manifest of an engine that may be loaded; None where it has none, and nothing is known.

    checkpoint: the folder whose tokenizer is served with it. versions: installed, by package. gpus: compute capability
    of each, as "9.0". An unknown one of the last two, an empty one, is not compared.
    Raises ManifestError that names everything that does not fit.
    """
    if not (engine / "config.json").is_file():
        raise ManifestError(f"'{engine}' is no engine's folder: it has no config.json.")
    manifest = read(engine)
    if manifest is None:
        return None
    problems = [*_file_problems(manifest, engine), *_problems(manifest, checkpoint, versions, gpus)]
    if problems:
        raise ManifestError(f"the engine in '{engine}' does not fit: {'; '.join(problems)}.")
    return manifest


def checkpoint_hash(folder: Path) -> str:
    """Of config and tokenizer, and of each weight file's name, size, first and last mebibyte."""
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
    # A plan is for one release of TensorRT, and TensorRT-LLM's kernels in it for one of its own.
    for package in ("tensorrt_llm", "tensorrt"):
        built, here = manifest.versions.get(package), versions.get(package)
        if built and here and built != here:
            yield f"it was built with {package} {built}, and {here} is installed"
    if gpus and len(gpus) < manifest.world_size:
        yield f"it runs on {manifest.world_size} GPUs, and there are {len(gpus)}"
    other = sorted(set(gpus) - {manifest.compute})
    if other:
        yield f"it was built for GPUs of compute capability {manifest.compute} ({manifest.gpu}), not {', '.join(other)}"
