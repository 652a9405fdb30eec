# SPDX-License-Identifier: Apache-2.0
"""Read a folder that `trtllm-build` has written: what its engine was built for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.launcher.errors import LaunchError
from scripts.shared import manifest
from scripts.shared.errors import EngineError, ManifestError
from scripts.shared.toolchain import find_gpus, package_versions

# What xgrammar needs of the tokenizer; optional.
GUIDES = "xgrammar_tokenizer_info.json"


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """An engine of TensorRT-LLM.

    max_seq_len: tokens of prompt and answer together. max_batch_size: requests that run at once. Both are None if the
    folder has no such entry. parameters: of the `tensorrt_llm` model's config, from the manifest. guides: the file that
    guided decoding needs, None if it is missing.
    """

    path: Path
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_seq_len: int | None = None
    max_batch_size: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    guides: Path | None = None

    @property
    def world_size(self) -> int:
        """Number of GPUs, and of processes: one for each."""
        return self.tensor_parallel * self.pipeline_parallel


def read_engine(path: Path) -> EngineFolder:
    """Read an engine's folder; raises LaunchError saying what is missing or wrong in it."""
    config = _object(path / "config.json", "Give --engine-dir the folder that `trtllm-build --output_dir` has written.")
    build, mapping = config.get("build_config") or {}, (config.get("pretrained_config") or {}).get("mapping") or {}
    engine = EngineFolder(
        path=path.resolve(),
        tensor_parallel=_count(mapping, "tp_size", path) or 1,
        pipeline_parallel=_count(mapping, "pp_size", path) or 1,
        max_seq_len=_count(build, "max_seq_len", path),
        max_batch_size=_count(build, "max_batch_size", path),
        parameters=_parameters(path),
        guides=path.resolve() / GUIDES if (path / GUIDES).is_file() else None,
    )
    missing = [f"rank{rank}.engine" for rank in range(engine.world_size) if not (path / f"rank{rank}.engine").is_file()]
    if missing:
        raise LaunchError(
            f"the engine in {path} is for {_shape(engine)}, but {', '.join(missing)} is missing.",
            "Build it to the end, or copy the whole folder.",
        )
    return engine


def check_world_size(engine: EngineFolder, asked: int | None) -> None:
    """Check that --world-size is the one that the engine was built for; raises LaunchError."""
    if asked is not None and asked != engine.world_size:
        raise LaunchError(
            f"--world-size is {asked}, but the engine in {engine.path} was built for {_shape(engine)}.",
            f"Leave --world-size out, or build the engine for {asked}.",
        )


def check_manifest(engine: EngineFolder, checkpoint: Path, *, runs_here: bool) -> None:
    """Check that the engine was built from this checkpoint and, if it runs here, for this machine.

    An engine without a manifest is not checked. Raises LaunchError.
    """
    versions = package_versions() if runs_here else {}
    try:
        gpus = [gpu.capability for gpu in find_gpus()] if runs_here else []
        manifest.check(engine.path, checkpoint, versions, gpus)
    except EngineError as error:
        raise LaunchError(str(error), "Build the engine again, or serve what it was built from.") from error


def _shape(engine: EngineFolder) -> str:
    return (
        f"a world size of {engine.world_size} (tensor parallel {engine.tensor_parallel}, "
        f"pipeline parallel {engine.pipeline_parallel})"
    )


def _object(path: Path, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise LaunchError(f"there is no {path}.", advice)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LaunchError(f"{path} is not JSON: {error}.", advice) from error
    if not isinstance(value, dict):
        raise LaunchError(f"{path} holds no JSON object.", advice)
    return value


def _count(section: Mapping[str, Any], name: str, path: Path) -> int | None:
    value = section.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise LaunchError(f"{path / 'config.json'}: {name} is {value!r}, not a number from 1 on.")
    return value


def _parameters(path: Path) -> dict[str, str]:
    try:
        made = manifest.read(path)
    except ManifestError as error:
        raise LaunchError(str(error)) from error
    return made.parameters if made is not None else {}
