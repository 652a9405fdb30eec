# SPDX-License-Identifier: Apache-2.0
"""Names of Triton's models. One model alone has the names of its steps; each of several has its own name before them.

A served model `qwen3` is the ensemble `qwen3` with the steps `qwen3.preprocessing`, `qwen3.vit` and so on; an embedding
model has one step, `bge.embedding`. Steps that were loaded in the place of others carry a number:
`qwen3.g2.preprocessing`.
"""

import re

ENSEMBLE, ENGINE, PREPROCESSING, POSTPROCESSING, VIT = (
    "ensemble",
    "tensorrt_llm",
    "preprocessing",
    "postprocessing",
    "vit",
)
STEPS = (PREPROCESSING, VIT, ENGINE, POSTPROCESSING)
# The only step of an embedding model, and the whole of one that is served alone.
EMBEDDING = "embedding"
# The steps with a network.
ENGINES = (ENGINE, EMBEDDING)
# What a served model may be called in Triton: its folder's name, and the first part of its steps' names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NUMBERED = re.compile(r"(?P<name>.+)\.g\d+")


def check_name(name: str) -> str:
    """Return a name that a served model may have in Triton; raises ValueError if this one cannot be used."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"'{name}' is not a name of a model: 1 to 64 of A-Z a-z 0-9 _ . - are, beginning with a letter or digit"
        )
    if _NUMBERED.fullmatch(name) or role(name) in (ENSEMBLE, *STEPS) or name.endswith(f".{EMBEDDING}"):
        raise ValueError(f"'{name}' is not a name of a model: it looks like a step of one")
    return name


def role(triton_model: str) -> str:
    """Return what a step does: `tensorrt_llm` for `qwen3.g2.tensorrt_llm` and for `tensorrt_llm`."""
    return triton_model.rpartition(".")[2]


def sibling(triton_model: str, of: str) -> str:
    """Return the step with the role `of` beside a step: `qwen3.vit` and "tensorrt_llm" make `qwen3.tensorrt_llm`."""
    prefix, dot, _ = triton_model.rpartition(".")
    return f"{prefix}{dot}{of}"


def step(served: str | None, of: str, generation: int = 1) -> str:
    """Return the name of a served model's step. served: None for the one model alone. generation: counts reloads."""
    if served is None:
        return of
    return f"{served}.{of}" if generation == 1 else f"{served}.g{generation}.{of}"


def owner(triton_model: str) -> str | None:
    """Return the served model that a step belongs to; None for a step of the one model alone."""
    prefix, dot, _ = triton_model.rpartition(".")
    if not dot:
        return None
    numbered = _NUMBERED.fullmatch(prefix)
    return numbered["name"] if numbered else prefix
