# SPDX-License-Identifier: Apache-2.0
"""The options of the Triton model `vit`."""

import json
from pathlib import Path

import pytest

from python_backend.config import ModelParameters
from vision.options import VitOptions, read_options


def parameters(**values: str) -> ModelParameters:
    values = {"model_path": "/m", "runtime": "torch", "device": "auto", "dtype": "auto"} | values
    config = {"name": "vit", "parameters": {key: {"string_value": value} for key, value in values.items()}}
    return ModelParameters.from_config(json.dumps(config), {})


def test_options_are_read_from_the_config():
    assert read_options(parameters(tile_budget="")) == VitOptions("torch", Path("/m/vision"))
    read = read_options(parameters(engine_file="/e.plan", tile_budget="8", compile="off", threads="2", device="cpu"))
    assert read == VitOptions(
        "torch", Path("/m/vision"), Path("/e.plan"), device="cpu", tile_budget=8, compile=False, threads=2
    )
    with pytest.raises(ValueError, match="'tile_budget' must be at least 1, not 0"):
        read_options(parameters(tile_budget="0"))
