# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from common.checkpoint import Checkpoint
from families.detection import FAMILIES, find_styler


def checkpoint(model_type: str, *architectures: str, path: Path = Path()) -> Checkpoint:
    return Checkpoint(path, model_type, architectures, 1000, 4096, (1,), 0)


@pytest.mark.parametrize(
    ("model_type", "architecture", "family"),
    [
        ("qwen2", "Qwen2ForCausalLM", "qwen"),
        ("qwen2_moe", "Qwen2MoeForCausalLM", "qwen"),
        ("qwen3", "Qwen3ForCausalLM", "qwen3"),
        ("qwen3_moe", "Qwen3MoeForCausalLM", "qwen3"),
        ("internvl_chat", "InternVLChatModel", "internvl2_5"),
        ("internvl", "InternVLForConditionalGeneration", "internvl2_5"),
        ("", "InternVLChatModel", "internvl2_5"),
        ("gemma3", "Gemma3ForConditionalGeneration", "gemma3"),
        ("gemma3_text", "Gemma3ForCausalLM", "gemma3"),
        ("deepseek_v32", "DeepseekV32ForCausalLM", "deepseek_v32"),
        ("deepseek_v4", "DeepseekV4ForCausalLM", "deepseek_v4"),
        ("mistral", "MistralForCausalLM", "default"),
    ],
)
def test_the_family_of_a_checkpoint(model_type: str, architecture: str, family: str) -> None:
    assert find_styler(checkpoint(model_type, architecture)).name == family


def test_llama_3_is_recognised_by_its_header_tokens(tmp_path: Path) -> None:
    assert find_styler(checkpoint("llama", path=tmp_path)).name == "default"
    (tmp_path / "tokenizer_config.json").write_text('{"x": "<|start_header_id|>"}', encoding="utf-8")
    assert find_styler(checkpoint("llama", path=tmp_path)).name == "llama3"


@pytest.mark.parametrize(
    ("encoder", "family"),
    [
        ('REASONING_EFFORT_MAX = (\n    "', "deepseek_v4_preview"),
        ("REASONING_EFFORT_PROMPTS: Dict[str, str] = {", "deepseek_v4"),
    ],
)
def test_deepseek_v4_is_told_from_its_preview_by_the_encoder(tmp_path: Path, encoder: str, family: str) -> None:
    (tmp_path / "encoding").mkdir()
    (tmp_path / "encoding" / "encoding_dsv4.py").write_text(encoder, encoding="utf-8")
    assert find_styler(checkpoint("deepseek_v4", path=tmp_path)).name == family


def test_a_styler_by_name() -> None:
    assert find_styler(checkpoint("qwen3"), "default").name == "default"
    with pytest.raises(
        ValueError, match="unknown styler 'qwen9'; known: deepseek_v32, deepseek_v4, deepseek_v4_preview, default, "
    ):
        find_styler(checkpoint("qwen3"), "qwen9")
    assert all(family.styler.name == name for name, family in FAMILIES.items())


def test_an_unknown_parser() -> None:
    with pytest.raises(ValueError, match=r"unknown tool-call parser 'none'; known: auto, .*hermes"):
        find_styler(checkpoint("qwen3"), tool_parser="none")
    with pytest.raises(ValueError, match=r"unknown reasoning parser 'none'; known: auto, .*deepseek_r1"):
        find_styler(checkpoint("qwen3"), reasoning_parser="none")


def test_the_vision_part_names_styler_and_system_prompt(tmp_path: Path) -> None:
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "config.json").write_text(
        json.dumps({"family": "internvl2_5", "system_prompt": "Look closely."})
    )
    styler = find_styler(checkpoint("llama", path=tmp_path))
    assert styler.name == "internvl2_5"
    assert styler.template_defaults == {"default_system": "Look closely."}
