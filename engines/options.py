# SPDX-License-Identifier: Apache-2.0
"""Read engine options from the model's config parameters and from one JSON or YAML file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from engines.adapters import AdapterOptions
from python_backend.config import ENVIRONMENT, ModelParameters

# Parameters of a Python model's config that are no options of an engine.
OWN = (
    *("engine", "model_path", "max_model_len", "max_requests", "engine_options"),
    *("max_inputs", "chat_template", "served_model", ENVIRONMENT),
)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of one engine.

    engine: a name of the registry or `module:Class`. model_path: checkpoint folder. passed: further options under the
    engine's own names. adapters: what is asked of LoRA adapters besides them.
    """

    engine: str
    model_path: str
    passed: Mapping[str, Any]
    adapters: AdapterOptions = field(default_factory=AdapterOptions)


def read_options(parameters: ModelParameters) -> EngineOptions:
    """Merge the options; later ones win: the `engine_options` file or object, `max_model_len`, other parameters."""
    passed = _read_object(parameters.text("engine_options"))
    max_model_len = parameters.integer("max_model_len")
    if max_model_len is not None:
        passed["max_model_len"] = max_model_len
    for key in parameters.values:
        value = parameters.text(key)
        # Upper-case parameters such as FORCE_CPU_ONLY_INPUT_TENSORS belong to Triton's Python backend.
        if key not in OWN and not key.isupper() and value is not None:
            passed[key] = yaml.safe_load(value)
    adapters = AdapterOptions.take(passed)
    return EngineOptions(parameters.required("engine"), parameters.required("model_path"), passed, adapters)


def refuse_unknown(passed: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise ValueError if the engine does not have an option; the message lists those that it has."""
    unknown = sorted(set(passed) - known)
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise ValueError(f"unknown engine option {names}; known: {', '.join(sorted(known))}")


def _read_object(text: str | None) -> dict[str, Any]:
    """Read an object from inline JSON, or from a JSON or YAML file."""
    if text is None:
        return {}
    inline = text.lstrip().startswith("{")
    if not inline and not Path(text).is_file():
        raise ValueError(f"engine_options: no such file: {text}")
    value = json.loads(text) if inline else yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"engine_options must be an object of option: value, not {type(value).__name__}")
    return value
