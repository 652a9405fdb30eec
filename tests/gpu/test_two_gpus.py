# SPDX-License-Identifier: Apache-2.0
"""Greedy tokens of a tensor-parallel engine equal those of an engine on one GPU."""

from pathlib import Path

import pytest
import torch
from openai import OpenAI

from scripts.launcher import FREE_PORTS, Stack
from tests.support.checkpoints import make_checkpoint
from tests.support.waiting import PATIENCE_S

QUESTIONS = ("What is the capital of France?", "Count from one to ten.", "Why is the sky blue?", "Hello!")
NEW_TOKENS = 24

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


def answers(checkpoint: Path, logs: Path, *flags: str) -> list[str | None]:
    """The greedy answers of a stack to QUESTIONS."""
    arguments = [str(checkpoint), "--dtype", "float32", "--max-model-len", "1024", "--log-dir", str(logs), *flags]
    with Stack([*arguments, *FREE_PORTS]) as stack:
        client = OpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)
        chats = [
            client.chat.completions.create(
                model="", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=NEW_TOKENS
            )
            for question in QUESTIONS
        ]
    return [chat.choices[0].message.content for chat in chats]


def test_two_gpus_answer_like_one(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "qwen3")
    one = answers(checkpoint, tmp_path / "one")
    assert all(one) and len(set(one)) > 1
    assert answers(checkpoint, tmp_path / "two", "--tensor-parallel-size", "2") == one
