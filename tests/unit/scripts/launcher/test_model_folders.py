# SPDX-License-Identifier: Apache-2.0
"""The generated repository of several models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.served_model import EMBEDDING, PARAMETER, ServedModelInfo
from python_backend.config import ModelParameters
from scripts.launcher import LaunchError
from scripts.launcher.embedding import MODEL_REPOSITORY
from scripts.launcher.layout import read_config
from scripts.launcher.model_folders import ModelFolders, ModelPlan
from scripts.launcher.options import LaunchOptions

REPOSITORY = LaunchOptions().model_repository
STEPS = ("preprocessing", "vit", "tensorrt_llm", "postprocessing")
PLAN = ModelPlan(
    name="qwen3",
    repository=REPOSITORY,
    variables={"TRITON_CHAT_MODEL": "/models/qwen3", "TRITON_CHAT_CHAT_TEMPLATE": "{{ '${TRITON_CHAT_MODEL}' }}"},
    environment={"CUDA_VISIBLE_DEVICES": "1"},
    info=ServedModelInfo(names=("qwen3", "gpt"), max_model_len=4096),
)


def values(folder: Path, model: str) -> dict[str, str]:
    """The parameters as the model itself reads them."""
    found = read_config(folder, f"{model}/config.pbtxt").parameters
    config = {"name": model, "parameters": {key: {"string_value": one.string_value} for key, one in found.items()}}
    return dict(ModelParameters.from_config(json.dumps(config), {"TRITON_CHAT_MODEL": "/other"}).values)


def step_names(folder: Path, model: str) -> list[str]:
    return [one.model_name for one in read_config(folder, f"{model}/config.pbtxt").ensemble_scheduling.step]


def test_a_model_gets_folders_of_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    ModelFolders(folder).write(PLAN)
    names = {f"qwen3.{step}" for step in STEPS}
    assert {one.name for one in folder.iterdir()} == {"qwen3", *names}
    assert step_names(folder, "qwen3") == [f"qwen3.{step}" for step in STEPS]
    assert ServedModelInfo.from_json(values(folder, "qwen3")[PARAMETER]) == PLAN.info
    for name in names:
        assert read_config(folder, f"{name}/config.pbtxt").name == name
        # The code is the committed one.
        assert (folder / name / "1").resolve() == REPOSITORY / name.partition(".")[2] / "1"
        assert json.loads(values(folder, name)["environment"]) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert list(tmp_path.iterdir()) == [folder]


def test_parameters_are_those_of_the_model_whatever_triton_s_environment_is(tmp_path: Path) -> None:
    ModelFolders(tmp_path / "models").write(PLAN)
    found = values(tmp_path / "models", "qwen3.preprocessing")
    assert found["model_path"] == "/models/qwen3"
    # Expanded once: a text of the operator's that looks like a variable is none.
    assert found["chat_template"] == "{{ '${TRITON_CHAT_MODEL}' }}"
    assert found["max_images"] == "64"


def test_tensors_and_policies_are_the_committed_ones(tmp_path: Path) -> None:
    ModelFolders(tmp_path / "models").write(PLAN)
    for role in (*STEPS, "ensemble"):
        name = "qwen3" if role == "ensemble" else f"qwen3.{role}"
        config, committed = (
            read_config(tmp_path / "models", f"{name}/config.pbtxt"),
            read_config(REPOSITORY, f"{role}/config.pbtxt"),
        )
        for one in (config, committed):
            one.ClearField("name")
            one.ClearField("parameters")
            for step in one.ensemble_scheduling.step:
                step.ClearField("model_name")
        assert config == committed


def test_a_model_of_embeddings_is_an_ensemble_of_one_step(tmp_path: Path) -> None:
    info = ServedModelInfo(names=("bge",), kind=EMBEDDING)
    plan = replace(PLAN, name="bge", repository=MODEL_REPOSITORY, info=info)
    folder = tmp_path / "models"
    ModelFolders(folder).write(plan, 2)
    assert {one.name for one in folder.iterdir()} == {"bge", "bge.g2.embedding"}
    ensemble, only = (read_config(folder, f"{name}/config.pbtxt") for name in ("bge", "bge.g2.embedding"))
    assert (ensemble.platform, ensemble.backend, only.backend) == ("ensemble", "", "python")
    assert step_names(folder, "bge") == ["bge.g2.embedding"]
    assert ServedModelInfo.from_json(values(folder, "bge")[PARAMETER]) == info
    assert PARAMETER not in only.parameters, "a frontend would take it for a model"
    assert list(ensemble.input) == list(only.input) and all(one.optional for one in ensemble.input)
    # The others are answers to frontends, which ask the step.
    assert [one.name for one in ensemble.output] == ["embedding", "score", "num_input_tokens"]
    (scheduled,) = ensemble.ensemble_scheduling.step
    assert dict(scheduled.input_map) == {one.name: one.name for one in ensemble.input}
    assert dict(scheduled.output_map) == {one.name: one.name for one in ensemble.output}


def test_a_later_generation_stands_beside_the_first(tmp_path: Path) -> None:
    folders = ModelFolders(tmp_path / "models")
    folders.write(PLAN)
    instances = {"preprocessing": 5, "tensorrt_llm": 2}
    folders.write(replace(PLAN, instances=instances), 2)
    assert step_names(folders.folder, "qwen3") == [f"qwen3.g2.{step}" for step in STEPS]
    for generation, counts in (("", {"preprocessing": 2, "tensorrt_llm": 1}), ("g2.", instances)):
        for role, count in counts.items():
            config = read_config(folders.folder, f"qwen3.{generation}{role}/config.pbtxt")
            assert [group.count for group in config.instance_group] == [count]
    folders.remove_names(PLAN.steps(1))
    folders.remove_names(PLAN.steps(1))
    assert {one.name for one in folders.folder.iterdir()} == {"qwen3", *(f"qwen3.g2.{step}" for step in STEPS)}
    folders.remove_names([PLAN.name, *PLAN.steps(2)])
    assert list(folders.folder.iterdir()) == []
    # What the links pointed at is untouched.
    assert (REPOSITORY / "tensorrt_llm" / "1" / "model.py").is_file()


def test_a_named_config_is_taken_where_there_is_one(tmp_path: Path) -> None:
    ModelFolders(tmp_path / "models").write(replace(PLAN, config_name="trtllm"))
    config = read_config(tmp_path / "models", "qwen3.tensorrt_llm/config.pbtxt")
    assert config.backend == "tensorrtllm"
    # Only Python models set variables.
    assert "environment" not in config.parameters


def test_a_repository_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"has no preprocessing/config\.pbtxt"):
        ModelFolders(tmp_path / "models").write(replace(PLAN, repository=tmp_path))
