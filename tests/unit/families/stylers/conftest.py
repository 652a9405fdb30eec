# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from common.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def qwen3(qwen3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(qwen3_tokenizer_dir)


@pytest.fixture(scope="module")
def gemma3(gemma3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(gemma3_tokenizer_dir)
