# SPDX-License-Identifier: Apache-2.0
"""Whether tensors are exactly those that a model expects, judged by names and shapes: no weights are loaded."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from scripts.split.errors import SplitError, listed
from scripts.split.plan import Shape
from scripts.split.source import Source
from scripts.split.text import HEAD


def causal_lm_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the files of a causal LM with this config.json, as its class in transformers has them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    try:
        built = AutoConfig.for_model(**deepcopy(dict(config)))  # It writes into what it is given.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(built)
    except (ValueError, TypeError, KeyError) as error:
        raise SplitError(f"transformers does not accept the language model's config: {error}") from error
    # Files hold each expert of a mixture by itself, while the model in memory has them stacked.
    shapes = {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, model.state_dict()).items()}
    if config["tie_word_embeddings"]:
        shapes.pop(HEAD, None)
    return shapes


def compare(found: Mapping[str, Shape], expected: Mapping[str, Shape], part: str) -> None:
    """Raises SplitError listing what is missing, left over or of another shape."""
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
    """What lies in a folder's weight files, read from their headers."""
    return {name: stored.shape for name, stored in Source.open(folder, {}).tensors.items()}
