# SPDX-License-Identifier: Apache-2.0
"""The options of the Triton model `vit`, read once from its config."""

from dataclasses import dataclass
from pathlib import Path

from python_backend.config import ModelParameters

VISION_FOLDER = "vision"
DEFAULT_TILE_BUDGET = 32


@dataclass(frozen=True, slots=True)
class VitOptions:
    """Options of the vision tower and its runtime.

    runtime: a name in `vision.runtimes.registry`. vision: the tower's folder. engine_file: replaces the runtime's
    default file. device: "auto", "cpu", "cuda" or "cuda:N". dtype: "auto" (as stored), bfloat16, float16 or float32.
    tile_budget: maximum number of tiles in one run. compile: None means on GPUs only. threads: CPU threads; None means
    all of them, or one if a GPU computes.
    """

    runtime: str
    vision: Path
    engine_file: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    tile_budget: int = DEFAULT_TILE_BUDGET
    compile: bool | None = None
    threads: int | None = None


def read_options(parameters: ModelParameters) -> VitOptions:
    """Read the options from the model's config. Raises ValueError with key and value if one is invalid."""
    engine_file = parameters.text("engine_file")
    return VitOptions(
        runtime=parameters.required("runtime"),
        vision=Path(parameters.required("model_path")) / VISION_FOLDER,
        engine_file=Path(engine_file) if engine_file else None,
        device=parameters.required("device"),
        dtype=parameters.required("dtype"),
        tile_budget=_positive(parameters, "tile_budget") or DEFAULT_TILE_BUDGET,
        compile=parameters.boolean("compile"),
        threads=_positive(parameters, "threads"),
    )


def _positive(parameters: ModelParameters, key: str) -> int | None:
    value = parameters.integer(key)
    if value is not None and value < 1:
        raise ValueError(f"model '{parameters.model}': parameter '{key}' must be at least 1, not {value}")
    return value
