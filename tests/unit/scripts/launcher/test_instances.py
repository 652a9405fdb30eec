# SPDX-License-Identifier: Apache-2.0
"""How many processes `preprocessing` has, and the repository that says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.checkpoint import Checkpoint
from common.served_model import EMBEDDING
from common.vision_path import VisionPath
from scripts.launcher import LaunchError, instances
from scripts.launcher.instances import INSTANCE_BYTES, RepositoryWithInstances, choose_instances
from scripts.launcher.layout import read_config
from scripts.launcher.model import ServedModel
from scripts.launcher.options import LaunchOptions

CHECKPOINT = Checkpoint(Path("/models/tiny"), "llama", ("LlamaForCausalLM",), 100, 2048, (2,), 0)
TEXT = ServedModel(CHECKPOINT, "tiny", 2**30)
PICTURES = replace(TEXT, vision=VisionPath.ENGINE)
CPU = {"CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_KVCACHE_SPACE": "1"}


@pytest.mark.parametrize(
    ("cores", "free", "count"),
    [
        (2, 64 * 2**30, 2),
        (10, 64 * 2**30, 5),
        (128, 640 * 2**30, 8),
        # Half of what weights and cache leave.
        (16, 2 * 2**30 + 6 * INSTANCE_BYTES, 3),
        (16, 2**30, 1),
    ],
)
def test_by_cores_and_memory(monkeypatch: pytest.MonkeyPatch, cores: int, free: int, count: int) -> None:
    monkeypatch.setattr(instances.os, "sched_getaffinity", lambda pid: range(cores))
    monkeypatch.setattr(instances, "available_memory", lambda: free)
    assert choose_instances(LaunchOptions(), PICTURES, CPU) == {"preprocessing": count}
    assert choose_instances(LaunchOptions(preprocessing_instances=7), PICTURES, CPU) == {"preprocessing": 7}


@pytest.mark.parametrize("vision", [VisionPath.NONE, VisionPath.VIT, VisionPath.PIXELS])
@pytest.mark.parametrize(
    ("cores", "free", "count"),
    [(2, 64 * 2**30, None), (11, 64 * 2**30, None), (16, 64 * 2**30, 4), (128, 64 * 2**30, 8), (16, 3 * 2**30, None)],
)
def test_other_models_have_those_of_the_config_or_more(
    monkeypatch: pytest.MonkeyPatch, vision: VisionPath, cores: int, free: int, count: int | None
) -> None:
    monkeypatch.setattr(instances.os, "sched_getaffinity", lambda pid: range(cores))
    monkeypatch.setattr(instances, "available_memory", lambda: free)
    model = replace(TEXT, vision=vision)
    assert choose_instances(LaunchOptions(), model, CPU) == ({} if count is None else {"preprocessing": count})
    assert choose_instances(LaunchOptions(preprocessing_instances=1), model, CPU) == {"preprocessing": 1}
    own = LaunchOptions(model_repository=Path("/own"))
    assert choose_instances(own, model, CPU) == {}
    assert choose_instances(replace(own, engine_clients=4), model, CPU) == {"tensorrt_llm": 4}


def test_a_model_of_embeddings_has_one_process() -> None:
    model = replace(TEXT, kind=EMBEDDING)
    assert choose_instances(LaunchOptions(engine_clients=1), model, CPU) == {}
    with pytest.raises(LaunchError, match="a model of embeddings has one process"):
        choose_instances(LaunchOptions(engine_clients=2), model, CPU)


def test_the_repository_differs_in_nothing_else() -> None:
    options = LaunchOptions()
    repository = RepositoryWithInstances(options, {"preprocessing": 5, "tensorrt_llm": 2})
    folder = repository.options.model_repository
    assert {model.name for model in folder.iterdir()} == {model.name for model in options.model_repository.iterdir()}
    config = read_config(folder, "preprocessing/config.pbtxt")
    assert [group.count for group in config.instance_group] == [5]
    assert read_config(folder, "tensorrt_llm/config.pbtxt").instance_group[0].count == 2
    config.instance_group[0].count = 2
    assert config == read_config(options.model_repository, "preprocessing/config.pbtxt")
    assert (folder / "preprocessing" / "1" / "model.py").is_file()
    assert (folder / "vit" / "config.pbtxt").is_file()
    repository.close()
    assert not folder.exists()


def test_a_repository_without_preprocessing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"has no preprocessing/config\.pbtxt"):
        RepositoryWithInstances(LaunchOptions(model_repository=tmp_path), {"preprocessing": 2})
