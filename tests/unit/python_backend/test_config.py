# SPDX-License-Identifier: Apache-2.0
"""Config parameters of a Triton model."""

import json
import os

import pytest

from python_backend.config import TRITON_MODEL, ModelParameters, apply_environment, escape, expand


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
        ("$${SET}", "${SET}"),
    ],
)
def test_variables_expand(text: str, expanded: str) -> None:
    assert expand(text, {"SET": "x", "EMPTY": ""}) == expanded


@pytest.mark.parametrize("text", ["${SET}", "$${SET}", "a ${SET:-d} $ ${", "{{ x }}"])
def test_an_escaped_text_stays_as_it_is(text: str) -> None:
    assert expand(escape(text), {"SET": "x"}) == text


def test_a_model_s_process_sets_the_variables_of_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv(TRITON_MODEL, "")
    apply_environment(json.dumps({"name": "vit", "parameters": {}}))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    own = {"string_value": json.dumps({"CUDA_VISIBLE_DEVICES": "1"})}
    apply_environment(json.dumps({"name": "qwen3.vit", "parameters": {"environment": own}}))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert os.environ[TRITON_MODEL] == "qwen3.vit"


def test_a_wrong_parameter_is_named() -> None:
    with pytest.raises(ValueError, match="'max_model_len' must be an integer, not 'many'"):
        parameters(max_model_len="many").integer("max_model_len")
    with pytest.raises(ValueError, match="'enable_thinking' must be true or false, not 'maybe'"):
        parameters(enable_thinking="maybe").given("enable_thinking")
    with pytest.raises(ValueError, match="'model_path' is empty"):
        parameters(model_path="${UNSET}").required("model_path")
    assert parameters(enable_thinking="off", other="").given("enable_thinking", "other") == {"enable_thinking": False}


def test_a_process_knows_its_number() -> None:
    config = {"name": "tensorrt_llm", "instance_group": [{"count": 12}]}
    for name, number in (("tensorrt_llm_0_0", 0), ("tensorrt_llm_0_11", 11)):
        found = ModelParameters.from_args({"model_config": json.dumps(config), "model_instance_name": name})
        assert (found.instance, found.instances) == (number, 12)
    config["instance_group"] = [{"count": 1, "name": "engine_1"}]
    only = ModelParameters.from_args({"model_config": json.dumps(config), "model_instance_name": "engine_1"})
    assert (only.instance, only.instances) == (0, 1)
    config["instance_group"] = [{"count": 1}, {"count": 1}]
    with pytest.raises(ValueError, match="'tensorrt_llm': it must have one instance_group"):
        ModelParameters.from_args({"model_config": json.dumps(config), "model_instance_name": "tensorrt_llm_1_0"})


def test_processes_are_counted() -> None:
    for groups, count in (([], 1), ([{"count": 4}], 4), ([{"count": 1}, {"count": 2}], 3)):
        config = {"name": "preprocessing", "instance_group": groups}
        assert ModelParameters.from_config(json.dumps(config), {}).instances == count
