# SPDX-License-Identifier: Apache-2.0
"""The parts of the Triton models that need no Triton: engine options, stop words, the streams of postprocessing."""

import json

import pytest

from python_backend.config import ModelParameters, expand


def parameters(**values: str) -> ModelParameters:
    config = {"name": "tensorrt_llm", "parameters": {key: {"string_value": value} for key, value in values.items()}}
    return ModelParameters.from_config(json.dumps(config), {"SET": "x", "EMPTY": ""})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${SET}", "x"),
        ("a${SET}b", "axb"),
        ("${UNSET}", ""),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("$SET", "$SET"),
    ],
)
def test_variables_expand(text, expanded):
    assert expand(text, {"SET": "x", "EMPTY": ""}) == expanded


def test_a_wrong_parameter_is_named():
    with pytest.raises(ValueError, match="'max_model_len' must be an integer, not 'many'"):
        parameters(max_model_len="many").integer("max_model_len")
    with pytest.raises(ValueError, match="'enable_thinking' must be true or false, not 'maybe'"):
        parameters(enable_thinking="maybe").given("enable_thinking")
    with pytest.raises(ValueError, match="'model_path' is empty"):
        parameters(model_path="${UNSET}").required("model_path")
    assert parameters(enable_thinking="off", other="").given("enable_thinking", "other") == {"enable_thinking": False}


def test_engine_options_merge(tmp_path):
    from engines.options import read_options

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


def test_engine_options_inline_and_wrong():
    from engines.options import read_options

    inline = parameters(engine="vllm", model_path="/m", engine_options='{"dtype": "half"}')
    assert read_options(inline).passed == {"dtype": "half"}
    with pytest.raises(ValueError, match="no such file: /nowhere"):
        read_options(parameters(engine="vllm", model_path="/m", engine_options="/nowhere"))


def test_an_unknown_engine_option_lists_the_known():
    from engines.options import refuse_unknown

    refuse_unknown({"dtype": "half"}, frozenset({"dtype"}))
    with pytest.raises(ValueError, match="unknown engine option 'dtipe'; known: dtype, max_model_len"):
        refuse_unknown({"dtipe": "half"}, frozenset({"dtype", "max_model_len"}))


def test_an_unknown_engine_lists_the_known():
    from engines.options import EngineOptions
    from engines.registry import build_engine

    with pytest.raises(ValueError, match="unknown engine 'ollama'; known: llmapi, vllm"):
        build_engine(EngineOptions("ollama", "/m", {}))


@pytest.mark.parametrize(
    ("words", "pieces", "matched"),
    [
        ([[1, 2]], [[1], [2]], [None, 1]),
        ([[1, 2]], [[5, 1, 2, 9]], [3]),
        ([[1, 1, 2]], [[1], [1], [1], [2]], [None, None, None, 1]),
        ([[7]], [[7]], [None]),  # a single id is the engine's own business
        ([[1, 2], [3, 4, 5]], [[3, 4], [1, 2]], [None, 2]),
        ([], [[1, 2, 3]], [None]),
    ],
)
def test_stop_words_of_several_ids(words, pieces, matched):
    from engines.stop_words import StopWordsMatcher

    matcher = StopWordsMatcher(words)
    assert [matcher.feed(piece) for piece in pieces] == matched
