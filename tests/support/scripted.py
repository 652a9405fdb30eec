# SPDX-License-Identifier: Apache-2.0
"""A real stack whose engine plays scripts: real Triton, ensemble, tokenizer and frontend around the scripted engine.

Or around the double of TensorRT-LLM's C++ backend, which plays the same scripts.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.launcher import FREE_PORTS, Stack

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
SCRIPT, DOUBLE, LOGS, ENGINE = "script.json", "double.json", "logs", "engine"
# Set by pytest's option --double: every scripted stack is one around the double.
ALL_DOUBLES = "TRITON_CHAT_TEST_DOUBLE"
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

    @property
    def double(self) -> bool:
        """Whether the engine is the double of the C++ backend, which lacks the extensions."""
        return self.stack.engine is not None

    def play(self, *rules: dict[str, Any]) -> None:
        """Replace the rules; the first whose `contains` stands in the prompt answers."""
        self._script.write_text(json.dumps(rules), encoding="utf-8")

    def asked_double(self) -> dict[str, Any]:
        """The inputs of the last request to the double by name, with the value of each that is one number."""
        asked: dict[str, Any] = json.loads((self._script.parent / "asked.json").read_text(encoding="utf-8"))
        return asked

    def set_double(self, **options: Any) -> None:
        """Replace the double's own options (`DoubleOptions`)."""
        (self._script.parent / DOUBLE).write_text(json.dumps(options), encoding="utf-8")


@contextmanager
def scripted_stack(
    family: str,
    tokenizer_dir: Path,
    folder: Path,
    names: Sequence[str] = (),
    *,
    more: Sequence[str] = (),
    clean_stop: bool = True,
    double: bool | None = None,
    **settings: str,
) -> Iterator[ScriptedStack]:
    """Start a stack for a family's real tokenizer on free ports; `folder` is empty, `settings` go to the environment.

    family: one of CONFIGS, or else a name for `tokenizer_dir`, which is a whole checkpoint then.
    names: what clients may call the model; the family alone unless told. more: arguments of the launcher.
    clean_stop: check in the end that no request was leaked. double: around the double; None is what --double says.
    """
    double = bool(os.environ.get(ALL_DOUBLES)) if double is None else double
    arguments = [*(double_line if double else scripted_line)(family, tokenizer_dir, folder), *more]
    arguments += ["--served-model-name", *names] if names else []
    with Stack(arguments, environment=os.environ | ({} if double else ENVIRONMENT) | settings) as stack:
        yield ScriptedStack(stack, folder / ENGINE / SCRIPT if double else folder / SCRIPT)
        if double:
            # Triton 2.51 never releases an ensemble's request whose step fails while another works, and the C++ backend
            # has no other way to tell a failure: Triton would wait for them until its time limit.
            stack.hurry.set()
    if clean_stop and not double:
        check_clean_stop(folder / LOGS)


def scripted_line(family: str, tokenizer_dir: Path, folder: Path) -> list[str]:
    """The arguments of `triton-chat serve` for such a stack, all files of which are laid out in `folder`."""
    checkpoint = _checkpoint(family, tokenizer_dir, folder)
    (folder / SCRIPT).write_text("[]")
    repository = _repository(folder)
    for fake in ("scripted_engine.py", "script.py"):
        shutil.copy(FAKES / fake, repository / "tensorrt_llm" / "1")
    flags = ["--model-repository", str(repository), "--script", str(folder / SCRIPT), "--log-dir", str(folder / LOGS)]
    return [str(checkpoint), *flags, *FREE_PORTS]


def double_line(family: str, tokenizer_dir: Path, folder: Path, **options: Any) -> list[str]:
    """The same around the double: the backend's name is all that differs from how the C++ backend is loaded.

    options: the double's own (`DoubleOptions`).
    """
    engine = folder / ENGINE
    engine.mkdir(parents=True)
    built = {"build_config": {"max_batch_size": 256}, "pretrained_config": {"mapping": {"tp_size": 1, "pp_size": 1}}}
    for name, content in (("config.json", built), (DOUBLE, options), (SCRIPT, [])):
        (engine / name).write_text(json.dumps(content))
    (engine / "rank0.engine").touch()
    repository = _repository(folder)
    llm = repository / "tensorrt_llm"
    shutil.rmtree(llm / "1")
    (llm / "config.pbtxt").unlink()
    shutil.copytree(FAKES / "trtllm_backend_double", llm / "1", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(FAKES / "script.py", llm / "1")
    config = llm / "configs" / "trtllm.pbtxt"
    text = config.read_text(encoding="utf-8")
    assert text.count('backend: "tensorrtllm"') == 1
    config.write_text(text.replace('backend: "tensorrtllm"', 'backend: "python"'), encoding="utf-8")
    flags = ["--engine", "trtllm", "--engine-dir", str(engine), "--model-repository", str(repository)]
    flags += ["--log-dir", str(folder / LOGS)]
    return [str(_checkpoint(family, tokenizer_dir, folder)), *flags, *FREE_PORTS]


def _checkpoint(family: str, tokenizer_dir: Path, folder: Path) -> Path:
    checkpoint = folder / family
    shutil.copytree(tokenizer_dir, checkpoint)
    if family in CONFIGS:
        (checkpoint / "config.json").write_text(json.dumps(CONFIGS[family]))
    return checkpoint


def _repository(folder: Path) -> Path:
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("__pycache__"))
    return repository


def check_clean_stop(logs: Path) -> None:
    """A request leaked inside Triton keeps the ensemble loaded until the exit time limit; and no stub may crash."""
    text = (logs / "tritonserver.log").read_text(encoding="utf-8", errors="replace")
    assert "successfully unloaded 'ensemble'" in text, "a request was never released"
    assert "Segfault" not in text, "a model's process crashed at its end"
