# SPDX-License-Identifier: Apache-2.0
"""Check that tensors are exactly those that a model expects, by names and shapes, without loading weights."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from scripts.split.errors import SplitError, listed
from scripts.split.plan import Shape
from scripts.split.source import Source
from scripts.split.text import HEAD


def causal_lm_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the tensors that transformers saves for a causal LM with this config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    try:
        built = AutoConfig.for_model(**deepcopy(dict(config)))  # It changes its arguments.
        with torch.device("meta"):
            # transformers does not annotate it.
            model = AutoModelForCausalLM.from_config(built)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError) as error:
        raise SplitError(f"transformers does not accept the language model's config: {error}") from error
    # In files each expert of a mixture is a tensor; in memory they are stacked.
    shapes = {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, model.state_dict()).items()}
    if config["tie_word_embeddings"]:
        shapes.pop(HEAD, None)
    return shapes


def compare(found: Mapping[str, Shape], expected: Mapping[str, Shape], part: str) -> None:
    """Raises SplitError listing tensors that are missing, left over or of another shape."""
    wrong = [
        f"{name} is {list(found[name])} instead of {list(expected[name])}"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "of another shape": wrong,
    }
    if any(problems.values()):
        words = "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)
        raise SplitError(f"the {part} tensors do not fit config.json: {words}.")


def written_shapes(folder: Path) -> dict[str, Shape]:
    """Read the shapes of all tensors from the headers of a folder's weight files."""
    return {name: stored.shape for name, stored in Source.open(folder, {}).tensors.items()}
