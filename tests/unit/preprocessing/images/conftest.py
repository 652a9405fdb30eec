# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from common.tokenizer import ChatTokenizer
from preprocessing.prompt import PromptBuilder
from tests.support.image_prompts import internvl_builder


@pytest.fixture(scope="module")
def internvl(qwen3_tokenizer_dir: Path) -> PromptBuilder:
    return internvl_builder(qwen3_tokenizer_dir)


@pytest.fixture(scope="module")
def gemma3_tokenizer(gemma3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(gemma3_tokenizer_dir)
