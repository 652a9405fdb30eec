# SPDX-License-Identifier: Apache-2.0
"""Engine options: the config's own parameters, one JSON or YAML file, and whatever else the config names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from python_backend.config import ModelParameters

OWN = ("engine", "model_path", "max_model_len", "max_requests", "engine_options")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """engine: registry name. model_path: checkpoint folder. passed: the engine's options by its own names."""

    engine: str
    model_path: str
    passed: Mapping[str, Any]


def read_options(parameters: ModelParameters) -> EngineOptions:
    """Merge, later wins: the `engine_options` file or inline object, `max_model_len`, other config parameters."""
    passed = _read_object(parameters.text("engine_options"))
    max_model_len = parameters.integer("max_model_len")
    if max_model_len is not None:
        passed["max_model_len"] = max_model_len
    for key in parameters.values:
        value = parameters.text(key)
        # FORCE_CPU_ONLY_INPUT_TENSORS and the like belong to Triton's Python backend and are upper case.
        if key not in OWN and not key.isupper() and value is not None:
            passed[key] = yaml.safe_load(value)
    return EngineOptions(parameters.required("engine"), parameters.required("model_path"), passed)


def refuse_unknown(passed: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise ValueError naming the options that the engine does not have, and those it has."""
    unknown = sorted(set(passed) - known)
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise ValueError(f"unknown engine option {names}; known: {', '.join(sorted(known))}")


def _read_object(text: str | None) -> dict[str, Any]:
    """An inline JSON object, or the path of a JSON or YAML file that holds one."""
    if text is None:
        return {}
    inline = text.lstrip().startswith("{")
    if not inline and not Path(text).is_file():
        raise ValueError(f"engine_options: no such file: {text}")
    value = json.loads(text) if inline else yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"engine_options must be an object of option: value, not {type(value).__name__}")
    return value
