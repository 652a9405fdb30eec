# SPDX-License-Identifier: Apache-2.0
"""Engine options from the model's config."""

import json
from pathlib import Path

import pytest

from engines.options import read_options, refuse_unknown
from python_backend.config import ModelParameters


def parameters(**values: str) -> ModelParameters:
    config = {"name": "tensorrt_llm", "parameters": {key: {"string_value": value} for key, value in values.items()}}
    return ModelParameters.from_config(json.dumps(config))


def test_engine_options_merge(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("dtype: half\nmax_num_seqs: 8\ncompilation_config: {mode: 0}\n")
    options = read_options(
        parameters(
            engine="vllm", model_path="/m", max_model_len="99", engine_options=str(file), enforce_eager="true", unset=""
        )
    )
    assert (options.engine, options.model_path) == ("vllm", "/m")
    assert options.passed == {
        "dtype": "half",
        "max_num_seqs": 8,
        "compilation_config": {"mode": 0},
        "max_model_len": 99,
        "enforce_eager": True,
    }


def test_engine_options_inline_and_wrong() -> None:
    inline = parameters(engine="vllm", model_path="/m", engine_options='{"dtype": "half"}')
    assert read_options(inline).passed == {"dtype": "half"}
    with pytest.raises(ValueError, match="no such file: /nowhere"):
        read_options(parameters(engine="vllm", model_path="/m", engine_options="/nowhere"))


def test_an_unknown_engine_option_lists_the_known() -> None:
    refuse_unknown({"dtype": "half"}, frozenset({"dtype"}))
    with pytest.raises(ValueError, match="unknown engine option 'dtipe'; known: dtype, max_model_len"):
        refuse_unknown({"dtipe": "half"}, frozenset({"dtype", "max_model_len"}))
