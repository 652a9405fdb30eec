# SPDX-License-Identifier: Apache-2.0
"""A stack whose engine plays scripts: real Triton, ensemble, tokenizer and frontend around a scripted engine.

The engine is tests/fakes/scripted_engine.py, or the double of TensorRT-LLM's C++ backend, which plays the same scripts.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.launcher import FREE_PORTS, Stack

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
SCRIPT, DOUBLE, LOGS, ENGINE = "script.json", "double.json", "logs", "engine"
# Set by pytest's option --double: every scripted stack uses the double.
ALL_DOUBLES = "TRITON_CHAT_TEST_DOUBLE"
ENVIRONMENT = {"TRITON_CHAT_ENGINE": "scripted_engine:ScriptedEngine"}
# The launcher refuses to start without room for a KV cache, though scripts have none.
LITTLE_MEMORY = {"VLLM_CPU_KVCACHE_SPACE": "1"}
# The names of two scripted models, the second with a dot as in the names of its steps.
PAIR, PAIR_ALIAS = ("alpha", "beta.v2"), "first"
# The parts of config.json by which a family is recognised; there are no weights.
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
        """Whether the engine is the double of the C++ backend, which lacks this project's extensions."""
        return self.stack.engine is not None

    def play(self, *rules: dict[str, Any]) -> None:
        """Replace the rules; the first whose `contains` is in the prompt answers."""
        self._script.write_text(json.dumps(rules), encoding="utf-8")

    def asked_double(self) -> dict[str, Any]:
        """The inputs of the double's last request by name, with the values of those that are single numbers."""
        asked: dict[str, Any] = json.loads((self._script.parent / "asked.json").read_text(encoding="utf-8"))
        return asked

    def set_double(self, **options: Any) -> None:
        """Replace the double's options (`DoubleOptions`)."""
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
    """Start a stack for a family's real tokenizer on free ports.

    family: one of CONFIGS, or else a name for `tokenizer_dir`, which must be a whole checkpoint then. folder: empty.
    names: names of the model for clients (default: the family). more: arguments of the launcher. clean_stop: check
    at the end that no request was leaked. double: use the double; None as --double says. settings: environment variables.
    """
    double = bool(os.environ.get(ALL_DOUBLES)) if double is None else double
    arguments = [*(double_line if double else scripted_line)(family, tokenizer_dir, folder), *more]
    arguments += ["--served-model-name", *names] if names else []
    with Stack(arguments, environment=os.environ | LITTLE_MEMORY | ({} if double else ENVIRONMENT) | settings) as stack:
        yield ScriptedStack(stack, folder / ENGINE / SCRIPT if double else folder / SCRIPT)
        if double:
            # Triton 2.51 never releases an ensemble's request whose step fails while another one works, and the C++
            # backend cannot report a failure in another way: Triton would wait for them until its time limit.
            stack.hurry.set()
    if clean_stop and not double:
        check_clean_stop(folder / LOGS)


class ScriptedPair:
    """Two scripted models in one stack, each with a script of its own."""

    def __init__(self, stack: Stack, models_file: Path, scripts: Mapping[str, Path]) -> None:
        self.stack = stack
        self.models_file = models_file
        self._scripts = scripts

    def play(self, model: str, *rules: dict[str, Any]) -> None:
        """Replace the rules of one model; the first whose `contains` is in the prompt answers."""
        self._scripts[model].write_text(json.dumps(rules), encoding="utf-8")


@contextmanager
def scripted_pair(
    tokenizer_dir: Path,
    folder: Path,
    *,
    second: Path | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    more: Sequence[str] = (),
    clean_stop: bool = True,
    **settings: str,
) -> Iterator[ScriptedPair]:
    """Start a stack with two scripted models on free ports, both with Qwen3's real tokenizer.

    PAIR has their names; requests may call the first one by the alias PAIR_ALIAS too. folder: empty. second: the
    checkpoint of the second one, if it is another. others: further models that are not scripted, as in a file of models.
    more: arguments of the launcher. clean_stop: check at the end that no request was leaked. settings: environment
    variables.
    """
    checkpoint, repository = _checkpoint("qwen3", tokenizer_dir, folder), _scripted_repository(folder)
    scripts = {name: folder / f"{name}.json" for name in PAIR}
    entries: dict[str, Any] = {
        name: {"model": str(path), "engine": ENVIRONMENT["TRITON_CHAT_ENGINE"], "script": str(scripts[name])}
        for name, path in zip(PAIR, (checkpoint, second or checkpoint), strict=True)
    }
    entries[PAIR[0]]["aliases"] = [PAIR_ALIAS]
    entries |= others or {}
    for script in scripts.values():
        script.write_text("[]")
    models_file = folder / "models.yaml"
    # JSON is YAML.
    models_file.write_text(json.dumps({"models": entries}), encoding="utf-8")
    arguments = ["--models", str(models_file), "--model-repository", str(repository), "--log-dir", str(folder / LOGS)]
    with Stack([*arguments, *FREE_PORTS, *more], environment=os.environ | LITTLE_MEMORY | settings) as stack:
        yield ScriptedPair(stack, models_file, scripts)
    if clean_stop:
        check_clean_stop(folder / LOGS, PAIR)


def scripted_line(family: str, tokenizer_dir: Path, folder: Path) -> list[str]:
    """Write the files of a scripted stack to `folder`; returns the arguments of `triton-chat serve`."""
    checkpoint = _checkpoint(family, tokenizer_dir, folder)
    (folder / SCRIPT).write_text("[]")
    repository = _scripted_repository(folder)
    flags = ["--model-repository", str(repository), "--script", str(folder / SCRIPT), "--log-dir", str(folder / LOGS)]
    return [str(checkpoint), *flags, *FREE_PORTS]


def double_line(family: str, tokenizer_dir: Path, folder: Path, **options: Any) -> list[str]:
    """Do the same with the double, whose config differs from the C++ backend's only in the backend's name.

    options: of the double (`DoubleOptions`).
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


def _scripted_repository(folder: Path) -> Path:
    repository = _repository(folder)
    for fake in ("scripted_engine.py", "script.py"):
        shutil.copy(FAKES / fake, repository / "tensorrt_llm" / "1")
    return repository


def _repository(folder: Path) -> Path:
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("__pycache__"))
    return repository


def check_clean_stop(logs: Path, ensembles: Sequence[str] = ("ensemble",)) -> None:
    """Check the log for leaked requests, which keep the ensemble loaded until the time limit, and for crashed stubs."""
    text = (logs / "tritonserver.log").read_text(encoding="utf-8", errors="replace")
    for ensemble in ensembles:
        assert f"successfully unloaded '{ensemble}'" in text, "a request was never released"
    assert "Segfault" not in text, "a model's process crashed at its end"
