# SPDX-License-Identifier: Apache-2.0
"""The options of `vit`, read once from its config."""

from dataclasses import dataclass
from pathlib import Path

from python_backend.config import ModelParameters

VISION_FOLDER = "vision"
DEFAULT_TILE_BUDGET = 32


@dataclass(frozen=True, slots=True)
class VitOptions:
    """runtime: registry name. vision: folder of the tower. engine_file: what to run instead of the runtime's default.

    device: "auto", "cpu", "cuda" or "cuda:1". dtype: "auto" (as stored), bfloat16, float16 or float32.
    tile_budget: most tiles of one run. compile: None leaves it to the device. threads: of the CPU, None
    for all, or one where a GPU computes.
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
    """Raises ValueError naming key and value of a wrong option."""
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
