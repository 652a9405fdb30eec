# SPDX-License-Identifier: Apache-2.0
"""A real stack whose engine plays scripts: real Triton, ensemble, tokenizer and frontend around the scripted engine."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.launcher import FREE_PORTS, Stack

ROOT = Path(__file__).parents[1]
SCRIPT, LOGS = "script.json", "logs"
ENVIRONMENT = {"TRITON_CHAT_ENGINE": "scripted_engine:ScriptedEngine"}
# What a checkpoint's config.json must say for a family to be recognised; there are no weights to describe.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "eos_token_id": 151645,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "vocab_size": 262208,
        "max_position_embeddings": 32768,
        "eos_token_id": [1, 106],
    },
}


class ScriptedStack:
    """A running scripted stack and the script that its engine plays."""

    def __init__(self, stack: Stack, script: Path) -> None:
        self.stack = stack
        self._script = script

    def play(self, *rules: dict[str, Any]) -> None:
        """Replace the rules; the first whose `contains` stands in the prompt answers."""
        self._script.write_text(json.dumps(rules), encoding="utf-8")


@contextmanager
def scripted_stack(
    family: str,
    tokenizer_dir: Path,
    folder: Path,
    names: Sequence[str] = (),
    *,
    more: Sequence[str] = (),
    clean_stop: bool = True,
    **settings: str,
) -> Iterator[ScriptedStack]:
    """Start a stack for a family's real tokenizer on free ports; `folder` is empty, `settings` go to the environment.

    family: one of CONFIGS, or else a name for `tokenizer_dir`, which is a whole checkpoint then.
    names: what clients may call the model; the family alone unless told. more: arguments of the launcher.
    clean_stop: check in the end that no request was leaked.
    """
    arguments = [*scripted_line(family, tokenizer_dir, folder), *more]
    arguments += ["--served-model-name", *names] if names else []
    with Stack(arguments, environment=os.environ | ENVIRONMENT | settings) as stack:
        yield ScriptedStack(stack, folder / SCRIPT)
    if clean_stop:
        check_clean_stop(folder / LOGS)


def scripted_line(family: str, tokenizer_dir: Path, folder: Path) -> list[str]:
    """The arguments of `triton-chat serve` for such a stack, all files of which are laid out in `folder`."""
    checkpoint = folder / family
    shutil.copytree(tokenizer_dir, checkpoint)
    if family in CONFIGS:
        (checkpoint / "config.json").write_text(json.dumps(CONFIGS[family]))
    (folder / SCRIPT).write_text("[]")
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "fakes" / "scripted_engine.py", repository / "tensorrt_llm" / "1")
    flags = ["--model-repository", str(repository), "--script", str(folder / SCRIPT), "--log-dir", str(folder / LOGS)]
    return [str(checkpoint), *flags, *FREE_PORTS]


def check_clean_stop(logs: Path) -> None:
    """A request leaked inside Triton keeps the ensemble loaded until the exit time limit."""
    text = (logs / "tritonserver.log").read_text(encoding="utf-8", errors="replace")
    assert "successfully unloaded 'ensemble'" in text, "a request was never released"
