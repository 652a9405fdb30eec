# SPDX-License-Identifier: Apache-2.0
"""Tokenizers and chat templates without PyTorch, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from common.tokenizer import ChatTokenizer

ROOT = Path(__file__).parents[3]
MESSAGES = [{"role": "user", "content": "2 + 2 = 五?"}]
PROGRAM = """
import json, os, sys
from common.no_torch import import_transformers_without_torch

import_transformers_without_torch()
from common.tokenizer import ChatTokenizer

tokenizer = ChatTokenizer.load(sys.argv[1])
prompt = tokenizer.render(json.loads(sys.argv[2]))
print(json.dumps([prompt, tokenizer.encode(prompt, False), "torch" in sys.modules, dict(os.environ) == json.loads(sys.argv[3])]))
import torch
"""


def run(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    arguments = [str(folder), json.dumps(MESSAGES), json.dumps(environment)]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_prompts_are_the_same_and_other_modules_may_import_torch(qwen3_tokenizer_dir: Path) -> None:
    done = run(qwen3_tokenizer_dir, {"LC_CTYPE": "C.UTF-8"})
    tokenizer = ChatTokenizer.load(qwen3_tokenizer_dir)
    prompt = tokenizer.render(MESSAGES)
    assert json.loads(done.stdout) == [prompt, tokenizer.encode(prompt, False), False, True]
    assert done.stderr == ""
