# SPDX-License-Identifier: Apache-2.0
"""Which way the pictures of a checkpoint take, and the sentences of those that can take none."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from common import vision_path as module
from common.vision_path import VisionPath, VllmModels, is_unsplit, vision_path, vllm_models

QWEN2_5_VL = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "vision_config": {},
}
INTERNVL = {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "vision_config": {}}
INTERNVL_HF = {"model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"], "vision_config": {}}
GEMMA3 = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}}
QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
# Its configuration names no vision part.
MINICPM = {"model_type": "minicpmv", "architectures": ["MiniCPMV"]}
UNKNOWN = {"model_type": "x", "architectures": ["XForConditionalGeneration"], "vision_config": {}}


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM with four architectures."""
    multimodal = {name for config in (QWEN2_5_VL, INTERNVL, MINICPM) for name in config["architectures"]}
    monkeypatch.setattr(
        module, "vllm_models", lambda: VllmModels(frozenset(multimodal), frozenset(multimodal | {"Qwen3ForCausalLM"}))
    )


def write(folder: Path, config: dict[str, Any], *files: str) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('{"model_type": "internvit"}')
    return folder


@pytest.mark.parametrize(
    ("config", "files", "path"),
    [
        (QWEN2_5_VL, (), VisionPath.ENGINE),
        (MINICPM, ("preprocessor_config.json",), VisionPath.ENGINE),
        (MINICPM, ("processor_config.json",), VisionPath.ENGINE),
        (MINICPM, (), VisionPath.NONE),
        (INTERNVL, ("preprocessor_config.json",), VisionPath.VIT),
        (INTERNVL_HF, (), VisionPath.VIT),
        (QWEN3, ("vision/config.json",), VisionPath.VIT),
        (GEMMA3, ("preprocessor_config.json",), VisionPath.PIXELS),
        (QWEN3, (), VisionPath.NONE),
        # vLLM serves such an architecture as text only.
        (QWEN3 | {"vision_config": {}}, (), VisionPath.NONE),
    ],
)
def test_the_checkpoint_decides(
    tmp_path: Path, config: dict[str, Any], files: tuple[str, ...], path: VisionPath
) -> None:
    write(tmp_path, config, *files)
    assert vision_path(tmp_path) is vision_path(tmp_path, "auto") is path
    assert vision_path(tmp_path, "none") is VisionPath.NONE


@pytest.mark.parametrize("config", [INTERNVL, INTERNVL_HF, QWEN2_5_VL, UNKNOWN])
def test_any_model_with_pictures_can_go_through_the_engine(tmp_path: Path, config: dict[str, Any]) -> None:
    assert vision_path(write(tmp_path, config), "engine") is VisionPath.ENGINE


def test_the_engine_already_runs_gemma_3s_tower(tmp_path: Path) -> None:
    assert vision_path(write(tmp_path, GEMMA3), "engine") is VisionPath.PIXELS


@pytest.mark.parametrize(
    ("config", "files", "wanted", "message"),
    [
        (QWEN2_5_VL, (), "vit", "InternVL, whose tower `vit` runs, and not for .*Qwen2_5_VLForConditionalGeneration"),
        (GEMMA3, (), "vit", "Gemma3ForConditionalGeneration"),
        (QWEN3, (), "vit", "Qwen3ForCausalLM"),
        (QWEN3, (), "engine", "needs a model that takes pictures"),
        (QWEN3, ("vision/config.json",), "engine", "from before its split"),
        (UNKNOWN, (), "auto", "XForConditionalGeneration.*--vision engine.*--vision none"),
        (QWEN3, (), "yes", "auto, engine, vit, none, not 'yes'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    tmp_path: Path, config: dict[str, Any], files: tuple[str, ...], wanted: str, message: str
) -> None:
    write(tmp_path, config, *files)
    with pytest.raises(ValueError, match=message):
        vision_path(tmp_path, wanted)


def test_the_cpp_backend_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, QWEN2_5_VL)
    with pytest.raises(ValueError, match=r"--engine trtllm takes no pictures of .*Qwen2_5_VL"):
        vision_path(tmp_path, engine="trtllm")
    assert vision_path(tmp_path, "none", "trtllm") is VisionPath.NONE
    assert vision_path(write(tmp_path, INTERNVL), engine="trtllm") is VisionPath.VIT


def test_the_llm_api_has_processors_of_its_own(tmp_path: Path) -> None:
    for config in (QWEN2_5_VL, UNKNOWN):
        write(tmp_path, config)
        assert vision_path(tmp_path, engine="llmapi") is vision_path(tmp_path, "engine", "llmapi") is VisionPath.RAW
        assert vision_path(tmp_path, "none", "llmapi") is VisionPath.NONE
    assert vision_path(write(tmp_path, GEMMA3), engine="llmapi") is VisionPath.PIXELS
    assert vision_path(write(tmp_path, QWEN3), engine="llmapi") is VisionPath.NONE
    write(tmp_path, INTERNVL)
    assert vision_path(tmp_path, engine="llmapi") is VisionPath.VIT
    with pytest.raises(ValueError, match="--engine llmapi takes no pictures"):
        vision_path(tmp_path, "engine", "llmapi")


def test_without_vllm_no_checkpoint_takes_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "vllm_models", lambda: None)
    assert vision_path(write(tmp_path, QWEN2_5_VL)) is VisionPath.NONE


def test_only_what_vit_runs_is_split(tmp_path: Path) -> None:
    write(tmp_path, INTERNVL)
    assert is_unsplit(tmp_path, VisionPath.VIT) and not is_unsplit(tmp_path, VisionPath.ENGINE)
    write(tmp_path, QWEN3, "vision/config.json")
    assert not is_unsplit(tmp_path, VisionPath.VIT)


def test_the_installed_vllm_is_read_without_importing_it() -> None:
    before = "vllm" in sys.modules
    models = vllm_models()
    assert models is not None and ("vllm" in sys.modules) is before
    assert {"Qwen2_5_VLForConditionalGeneration", "InternVLChatModel", "MiniCPMV"} <= models.multimodal
    assert {"Qwen3ForCausalLM", "LlamaForCausalLM"} <= models.known - models.multimodal
    # It had been served until vLLM 0.24.
    assert "QwenVLForConditionalGeneration" not in models.known


def test_the_registry_says_the_same() -> None:
    """The tables are read from vLLM's source; what it makes of them decides."""
    registry = pytest.importorskip("vllm.model_executor.models.registry")
    models = vllm_models()
    assert models is not None
    assert models.known == set(registry._VLLM_MODELS)
    assert set(registry._MULTIMODAL_MODELS) <= models.multimodal
