# SPDX-License-Identifier: Apache-2.0
"""Options of models and engine are checked before anything is read or started."""

import re
import shlex
import sys
from dataclasses import fields
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from common.checkpoint import Checkpoint
from common.command_line import flag_of
from families.detection import FAMILIES
from families.stylers import NAMES
from frontend.settings import Settings
from scripts.launcher import LaunchError
from scripts.launcher.checks import check_context, check_formats, check_options
from scripts.launcher.engine_options import check_installed
from scripts.launcher.model import ServedModel, resolve_model
from scripts.launcher.model_settings import RUNTIMES
from scripts.launcher.options import own_flags, parse_options
from scripts.launcher.vllm_options import RENAMED, vllm_options
from scripts.split import command
from scripts.split.plan import DTYPES
from vision.runtimes import registry


def test_names_that_are_written_without_their_tables() -> None:
    """The tables import torch or transformers, which a command line need not wait for."""
    assert tuple(FAMILIES) == NAMES
    assert tuple(registry.RUNTIMES) == RUNTIMES
    assert set(DTYPES) == set(command.DTYPES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m --styler qwen9", "--styler qwen9 is unknown; did you mean qwen"),
        ("m --engine vlm", "--engine vlm is unknown; did you mean vllm?"),
        ("m --engine 9", "--engine 9 is unknown; known: vllm, llmapi, trtllm, module:Class."),
        ("m --engine llmapi --engine-clients 2", "--engine-clients 2: only vLLM's engine core takes several clients."),
        ("m --kind embedding --engine-clients 2", "--engine-clients 2: only vLLM's engine core"),
        ("m --engine-clients 3 --enable-lora --allowed-lora-path /a", "--engine-clients 3: adapters that change"),
        ("m --engine-clients 2 --model-config-name own", "--engine-clients 2: a named config says it itself"),
        ("m --engine-clients 2 --data-parallel-size 2", "--engine-clients 2: with data parallelism there is one."),
    ],
)
def test_a_wrong_name(line: str, said: str) -> None:
    with pytest.raises(LaunchError) as caught:
        check_options(parse_options(shlex.split(line)), {})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOOL_CALL_PARSER", "hermess", "unknown tool-call parser 'hermess'; did you mean hermes?"),
        ("REASONING_PARSER", "deepsek_r1", "unknown reasoning parser 'deepsek_r1'; did you mean deepseek_r1?"),
    ],
)
def test_a_wrong_parser(name: str, value: str, said: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(said)):
        check_formats({f"TRITON_CHAT_{name}": value})


@pytest.mark.skipif(not vllm_options(), reason="needs vLLM")
def test_a_slip_may_be_any_option() -> None:
    for slip, meant in (("--prot", "--port"), ("--max-queud", "--max-queued"), ("--vit-runtim", "--vit-runtime")):
        with pytest.raises(LaunchError, match=rf"unknown option {slip}; did you mean {meant}\?$"):
            check_options(parse_options(["m", slip, "1"]), {})
    # Other engines have other options.
    check_options(parse_options(["m", "--engine", "mine:Engine", "--prot", "1"]), {})


LLM_ARGS = """
LoadFormat = Literal["auto", "dummy"]


class LoadOrder(Enum):
    FIRST = 0


class KvCacheConfig(StrictBaseModel):
    dtype: str = "auto"


class BaseLlmArgs(StrictBaseModel):
    model: Union[str, Path] = Field(description="The model.")
    max_num_tokens: Optional[int] = Field(default=8192, description="The most tokens of a batch.")
    old: int = Field(default=1, validation_alias=AliasChoices("new", "old"))
    revision: Optional[str] = Field(default=None)
    trust_remote_code: bool = Field(default=False)
    tensor_parallel_size: int = Field(default=1, ge=1)
    kv_cache_config: KvCacheConfig = Field(default_factory=KvCacheConfig)
    load_format: LoadFormat = "auto"
    load_order: LoadOrder = LoadOrder.FIRST
    batch_wait_ms: NonNegativeFloat = 0.0
    lookahead: List[PositiveInt] = Field(default_factory=list)
    build_config: Optional[object] = None


class TorchLlmArgs(BaseLlmArgs):
    sampler_type: str = Field(default="auto", status="beta")

    @property
    def extra(self) -> int:
        return 1


class TrtLlmArgs(BaseLlmArgs):
    fast_build: bool = Field(default=False)
"""
OWN_ENGINE = """
from typing import ClassVar
from elsewhere import Imported


class Engine:
    OPTIONS: ClassVar = ("script", "slots")


class Other:
    def start(self) -> None: ...
"""


SLOW_ENGINE = """# -*- coding: latin-1 -*-
MAKER = "Müller"


class Engine:
    OPTIONS = ("slots",)


def __getattr__(name):
    return Engine
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "tensorrt_llm" / "1"
    package = folder / "tensorrt_llm" / "llmapi"
    package.mkdir(parents=True)
    for file, text in (
        (package / "llm_args.py", LLM_ARGS),
        (package / "__init__.py", ""),
        (package.parent / "__init__.py", ""),
        (folder / "mine.py", OWN_ENGINE),
        (folder / "model.py", ""),
    ):
        file.write_text(text)
    (folder / "slow_engine.py").write_bytes(SLOW_ENGINE.encode("latin-1"))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("llmapi --max-num-tokens 8 --max-model-len 8 --max-num-seqs 8 --sampler-type a --new 3 --old 4", ""),
        ("llmapi --max-num-tokens many", "--max-num-tokens must be a whole number, not 'many'."),
        ("llmapi --max-num-tokens", "--max-num-tokens must be a whole number, not 'true'."),
        ("llmapi --max-num-tokens 8.5", "--max-num-tokens must be a whole number, not '8.5'."),
        ("llmapi --new x", "--new must be a whole number, not 'x'."),
        ("llmapi --tensor-parallel-size 0", "--tensor-parallel-size must be at least 1, not 0."),
        ("llmapi --trust-remote-code maybe", "--trust-remote-code must be true or false, not 'maybe'."),
        ("llmapi --kv-cache-config 0.8", "--kv-cache-config must be a JSON object such as "),
        ("llmapi --kv-cache-config '{a: 1}'", "--kv-cache-config is not valid JSON: '{a: 1}'."),
        ("llmapi --load-format dumy", "--load-format must be one of auto, dummy, not 'dumy'; did you mean dummy?"),
        ("llmapi --batch-wait-ms soon", "--batch-wait-ms must be a number, not 'soon'."),
        ("llmapi --lookahead 4", "--lookahead must be a list such as "),
        ("llmapi --revision 123 --trust-remote-code 1 --load-order first --build-config 7 --batch-wait-ms 2", ""),
        (
            "llmapi --tensor-parallel-size 2 --kv-cache-config '{}' --load-format dummy --lookahead '[1]' --new '\"8\"'",
            "",
        ),
        ("llmapi --backend _autodeploy --max-num-tokens many", ""),
        ("llmapi --enable-lora --max-num-token 8", "unknown option --enable-lora."),
        ("llmapi --max-num-tokenz 8", "unknown option --max-num-tokenz; did you mean --max-num-tokens?"),
        ("llmapi --prot 8", "unknown option --prot; did you mean --port?"),
        ("llmapi --fast-build", "unknown option --fast-build."),
        ("llmapi --backend _autodeploy --fast-build", ""),
        ("mine:Engine --script a --slots 3", ""),
        ("mine:Engine --slot 3", "unknown option --slot; did you mean --slots?"),
        ("mine:Engine --prot 3", "unknown option --prot; did you mean --port?"),
        ("mine:Other --slot 3", ""),
        ("mine:Imported --slot 3", ""),
        ("mine:Engin", "mine.py has no class Engin; did you mean Engine?"),
        ("slow_engin:Engine", "--engine slow_engin:Engine: there is no module slow_engin; did you mean slow_engine?"),
        ("mime:Engine", ""),
        ("slow_engin.parts:Engine", ""),
        ("slow_engine:Made", ""),
        ("slow_engine:Engine --slots 3", ""),
        ("slow_engine:Engine --slot 3", "unknown option --slot; did you mean --slots?"),
        ("elsewhere.engines:Engine --slot 3", ""),
    ],
)
def test_options_of_other_engines(repository: Path, line: str, said: str) -> None:
    options = parse_options(["m", "--model-repository", str(repository), "--engine", *shlex.split(line)])
    if not said:
        check_options(options, {})
        return
    with pytest.raises(LaunchError) as caught:
        check_options(options, {})
    assert said in str(caught.value)


def test_a_module_of_an_import_hook_is_no_slip(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hook:
        """As of an editable installation."""

        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> ModuleSpec | None:
            return ModuleSpec(name, None) if name == "slow_engin" else None

    line = ["m", "--model-repository", str(repository), "--engine", "slow_engin:Engine"]
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Hook])
    check_options(parse_options(line), {})


def test_the_embedded_server_needs_the_package_of_the_llm_api(repository: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    for engine in ("vllm", "mine:Engine", ""):
        check_installed(engine, empty)
    check_installed("llmapi", repository)
    if find_spec("tensorrt_llm") is None:
        with pytest.raises(
            ValueError, match=r"^--engine llmapi needs the package tensorrt_llm: pip install tensorrt_llm$"
        ):
            check_installed("llmapi", empty)


def test_options_of_an_engine_that_is_not_here(tmp_path: Path) -> None:
    line = ["m", "--model-repository", str(tmp_path), "--engine", "llmapi", "--anything", "1"]
    check_options(parse_options(line), {})


@pytest.mark.skipif(not vllm_options(), reason="needs vLLM")
def test_fields_that_are_not_for_users_are_not_suggested() -> None:
    with pytest.raises(LaunchError) as caught:
        check_options(parse_options(["m", "--api-process-count", "2"]), {})
    said, _, guess = str(caught.value).partition(";")
    assert said == "unknown option --api-process-count" and "api" not in guess


@pytest.mark.skipif(not vllm_options(), reason="needs vLLM")
def test_options_of_vllm_serve_that_have_another_name() -> None:
    with pytest.raises(LaunchError, match=r"^--api-server-count of `vllm serve` is --frontends here\.$"):
        check_options(parse_options(["m", "--api-server-count", "2"]), {})
    assert not RENAMED.keys() & vllm_options()
    page = (Path(__file__).parents[4] / "docs" / "migrating.md").read_text(encoding="utf-8")
    ours = {flag_of(name) for name in own_flags() | {setting.name for setting in fields(Settings)}}
    for name, here in RENAMED.items():
        assert here in ours
        assert re.search(rf"^\| [^|]*`{flag_of(name)}`[^|]*\|[^|]*`{here}`", page, re.MULTILINE), name


@pytest.mark.skipif(not vllm_options(), reason="needs vLLM")
@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--runner pooling", "runner", "pooling"),
        ("--runner generate", "runner", "generate"),
        ("--convert embed", "convert", "embed"),
        ("--convert none", "convert", "none"),
        ("--gpu-memory-utilization .9", "gpu_memory_utilization", 0.9),
        ("--cpu-offload-gb 4.", "cpu_offload_gb", 4.0),
        ("--video-pruning-rate +.5", "video_pruning_rate", 0.5),
        ("--revision 1234567", "revision", "1234567"),
        ("--tokenizer-revision 16k", "tokenizer_revision", "16k"),
        ("--code-revision 1e7", "code_revision", "1e7"),
        ("--show-hidden-metrics-for-version 0.11", "show_hidden_metrics_for_version", "0.11"),
        ("--hf-token 123", "hf_token", "123"),
        ("--hf-token", "hf_token", True),
        ("--revision None", "revision", None),
        ("--quantization none", "quantization", None),
        ("--ignore-patterns '[\"a\"]'", "ignore_patterns", ["a"]),
        ("--tokenizer-mode deepseek_v41", "tokenizer_mode", "deepseek_v41"),
    ],
)
def test_what_vllm_takes_from_a_command_line(line: str, name: str, value: object) -> None:
    options = parse_options(["m", *shlex.split(line)])
    check_options(options, {})
    assert options.engine == {name: value}
    assert type(options.engine[name]) is type(value)


@pytest.mark.skipif(not vllm_options(), reason="needs vLLM")
def test_texts_of_vllm_are_not_those_of_other_engines() -> None:
    assert parse_options(["m", "--engine", "mine:Engine", "--revision", "12"]).engine == {"revision": 12}


def test_a_variable_of_the_models() -> None:
    with pytest.raises(LaunchError, match=r"TRITON_CHAT_MAX_TILES='many': expected a whole number from 1 to "):
        check_options(parse_options(["m"]), {"TRITON_CHAT_MAX_TILES": "many"})


def served(folder: Path, config: str) -> ServedModel:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config)
    return ServedModel(Checkpoint(folder, "llama", (), 100, 2048, (2,), 0), "tiny", 1)


def test_a_context_beyond_the_checkpoint(tmp_path: Path) -> None:
    model = served(tmp_path / "m", '{"max_position_embeddings": 2048}')
    check_context(model, parse_options(["m", "--max-model-len", "2048"]), {})
    longer = parse_options(["m", "--max-model-len", "4k"])
    with pytest.raises(LaunchError, match="--max-model-len 4000 is longer than the context of tiny, 2048 tokens"):
        check_context(model, longer, {})
    check_context(model, longer, {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"})
    check_context(model, parse_options(["m", "--max-model-len", "4k", "--hf-overrides", '{"a": 1}']), {})
    # vLLM multiplies by some factors and not by others: what it may accept is left to it.
    check_context(served(tmp_path / "m", '{"rope_scaling": {"factor": 4.0}}'), longer, {})


def test_a_slip_in_the_name_of_a_prepared_model() -> None:
    from rich.console import Console

    with pytest.raises(LaunchError, match=r"there is no model 'smolm2'; did you mean smollm2\?$"):
        resolve_model("smolm2", Console(quiet=True))
