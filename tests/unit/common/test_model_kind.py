# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint is for is found out by its files, and no chat model is taken for an embedding model."""

import json
from pathlib import Path

import pytest

from common.model_kind import model_kind
from common.served_model import CHAT, EMBEDDING
from common.vision_path import vllm_models


def kind(folder: Path, architecture: str | None) -> str:
    config = {} if architecture is None else {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model_kind(folder)


@pytest.mark.parametrize(
    "architecture",
    [
        *("BertModel", "XLMRobertaModel", "NomicBertModel", "ModernBertModel", "Qwen3Model", "GteNewModel"),
        *("BertForSequenceClassification", "XLMRobertaForSequenceClassification", "Qwen3ForSequenceClassification"),
    ],
)
def test_encoders_and_classifiers_embed(tmp_path: Path, architecture: str) -> None:
    assert kind(tmp_path, architecture) == EMBEDDING


@pytest.mark.parametrize(
    "architecture",
    [
        None,
        "Qwen3ForCausalLM",
        "InternVLChatModel",
        "GPT2LMHeadModel",
        "Qwen2_5_VLForConditionalGeneration",
        "NVLM_D_Model",
    ],
)
def test_generators_chat(tmp_path: Path, architecture: str | None) -> None:
    assert kind(tmp_path, architecture) == CHAT


def test_a_generator_in_the_layout_of_sentence_transformers_embeds(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    assert kind(tmp_path, "Qwen3ForCausalLM") == EMBEDDING


def test_no_architecture_that_generates_in_vllm_is_taken_for_an_encoder(tmp_path: Path) -> None:
    models = vllm_models()
    assert models is not None
    taken = {name for name in models.known if kind(tmp_path, name) == EMBEDDING}
    assert {"BertModel", "RobertaModel", "BertForSequenceClassification"} <= taken
    assert not {
        name for name in taken if name.endswith(("CausalLM", "ConditionalGeneration", "ChatModel", "LMHeadModel"))
    }
    assert not taken & {"NVLM_D_Model", "Qwen2_5OmniModel", "InternVLChatModel", "CLIPModel", "SiglipModel"}
