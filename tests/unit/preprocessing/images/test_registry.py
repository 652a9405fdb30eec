# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest

from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from preprocessing.images.gemma3 import Gemma3Images
from preprocessing.images.internvl import InternVLImages
from preprocessing.images.registry import find_images
from preprocessing.prompt import PromptBuilder
from tests.support.image_prompts import OPTIONS, VISION, VOCAB


def test_which_checkpoints_take_images(
    tmp_path: Path, qwen3_tokenizer_dir: Path, gemma3_tokenizer: ChatTokenizer, internvl: PromptBuilder
) -> None:
    def found(config: dict[str, Any], vision: dict[str, Any] | None, tokenizer: ChatTokenizer) -> type:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "vision").mkdir(exist_ok=True)
        (tmp_path / "vision" / "config.json").write_text(json.dumps(vision or {}))
        checkpoint = Checkpoint(tmp_path, config["model_type"], (), VOCAB, 32768, (1,), 0)
        return type(find_images(checkpoint, tokenizer, OPTIONS))

    assert found({"model_type": "qwen2"}, VISION, internvl.tokenizer) is InternVLImages
    assert found({"model_type": "qwen2"}, None, internvl.tokenizer) is type(None)
    assert found({"model_type": "gemma3", "vision_config": {}}, None, gemma3_tokenizer) is Gemma3Images
    # A split Gemma 3 is only its language model: a text engine has no bidirectional attention for image tokens.
    assert found({"model_type": "gemma3_text"}, {"model_type": "siglip_gemma3"}, gemma3_tokenizer) is type(None)
    with pytest.raises(ValueError, match="has no token <IMG_CONTEXT>"):
        found({"model_type": "qwen2"}, VISION, ChatTokenizer.load(qwen3_tokenizer_dir))
    with pytest.raises(ValueError, match="must be split first"):
        found({"model_type": "internvl_chat"}, None, internvl.tokenizer)
    incomplete = {key: value for key, value in VISION.items() if key != "use_thumbnail"}
    with pytest.raises(ValueError, match="use_thumbnail"):
        found({"model_type": "qwen2"}, incomplete, internvl.tokenizer)
