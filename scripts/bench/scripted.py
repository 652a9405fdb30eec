# SPDX-License-Identifier: Apache-2.0
"""A model repository whose `tensorrt_llm` has the token-rate engine: what is left to measure is the serving layers."""

import shutil
from pathlib import Path

from scripts.cache import REPOSITORY

ENGINE = "token_rate_engine:TokenRateEngine"
_MODULE = Path(__file__).with_name("token_rate_engine.py")


def scripted_repository(folder: Path, source: Path = REPOSITORY / "model_repository") -> Path:
    """Copy the repository into `folder` with the engine beside its engines."""
    repository = folder / "model_repository"
    shutil.copytree(source, repository, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_MODULE, repository / "tensorrt_llm" / "1")
    return repository


def scripted_flags(repository: Path, rate: float) -> list[str]:
    """What `triton-chat serve` is told to use it. rate: tokens a second for each stream."""
    return ["--model-repository", str(repository), "--engine", ENGINE, "--token-rate", f"{rate:g}"]
