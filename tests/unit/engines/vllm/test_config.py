# SPDX-License-Identifier: Apache-2.0
"""vLLM's configuration: defaults, and the classes that vLLM imports by name in its processes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.utils.import_utils import resolve_obj_by_qualname
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.worker.cpu_worker import CPUWorker

from common.adapters import AdapterSource
from engines.adapters import AdapterOptions
from engines.options import EngineOptions
from engines.vllm import config
from engines.vllm.config import engine_args
from engines.vllm.cpu_lora import LoraWorker
from engines.vllm.pooling import pooling_args
from scripts.launcher.vllm_options import vllm_options
from tests.support.checkpoints import make_checkpoint

ROOT = Path(__file__).parents[4]
# As a worker of vLLM does, which has imported nothing else of ours: forked from a process that has imported vLLM.
WORKERS = """
import json, os, sys
from vllm import ModelRegistry
from vllm.utils.import_utils import resolve_obj_by_qualname

for name, architecture in json.loads(sys.argv[1]):
    if os.fork() == 0:
        resolve_obj_by_qualname(name)
        model = ModelRegistry.models[architecture].load_model_cls()
        print(model._processor_factory.processor.__module__, flush=True)
        os._exit(0)
    os.wait()
"""
# The class, the architecture of the model, and the module of its processor.
KNOWN_MODELS = [
    (config.GEMMA3_EXTENSION, "Gemma3ForConditionalGeneration", "engines.vllm.gemma3"),
    (config.SCHEDULER, "Gemma3ForConditionalGeneration", "engines.vllm.gemma3"),
    (f"{config.TABLE_EXTENSION}LlamaForCausalLM", "LlamaForCausalLM", "engines.vllm.table_model"),
]
# In a process of its own, as it changes vLLM's registry of models.
CONFIGURE = """
import json, sys
from engines.options import EngineOptions
from engines.vllm.config import engine_args, engine_config
from engines.vllm.table_model import takes_tables

config = engine_config(engine_args(EngineOptions("vllm", sys.argv[1], {"enforce_eager": True, "enable_prompt_embeds": True})))
model = config.model_config
print(json.dumps([
    takes_tables(model), model.is_multimodal_model, model.enable_prompt_embeds, config.scheduler_config.scheduler_cls,
    config.parallel_config.worker_extension_cls,
]))
"""


def test_a_split_checkpoint_takes_prompt_embeddings_by_default(tmp_path: Path) -> None:
    def takes_embeds(**passed: object) -> bool:
        return engine_args(EngineOptions("vllm", str(tmp_path), passed)).enable_prompt_embeds

    assert not takes_embeds()
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "config.json").write_text("{}", encoding="utf-8")
    assert takes_embeds()
    assert not takes_embeds(enable_prompt_embeds=False)
    with pytest.raises(ValueError, match="unknown engine option 'dtipe'"):
        takes_embeds(dtipe="half")


def test_vllm_gets_prompt_embeddings_as_images(tmp_path: Path, qwen3_tokenizer_dir: Path) -> None:
    """vLLM's own prompt embeddings stay off, which need its older model runner."""
    folder = make_checkpoint("qwen2", qwen3_tokenizer_dir, tmp_path / "qwen2")
    program = [sys.executable, "-c", CONFIGURE, str(folder)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *flags, scheduler, extension = json.loads(done.stdout.splitlines()[-1])
    assert flags == [True, True, False]
    assert scheduler in (config.TABLE_SCHEDULER, config.ASYNC_TABLE_SCHEDULER)
    assert extension == f"{config.TABLE_EXTENSION}Qwen2ForCausalLM"


def test_a_budget_of_reasoning_ends_with_the_family_s_marker(tmp_path: Path, qwen3_tokenizer_dir: Path) -> None:
    def reasoning(folder: Path, **passed: object) -> tuple[str, str] | None:
        found = engine_args(EngineOptions("vllm", str(folder), passed)).reasoning_config
        return found and (found.reasoning_start_str, found.reasoning_end_str)

    folder = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "qwen3")
    assert reasoning(folder) == ("<think>", "</think>")
    own = {"reasoning_start_str": "<a>", "reasoning_end_str": "Enough.</a>"}
    assert reasoning(folder, reasoning_config=own) == ("<a>", "Enough.</a>")
    assert reasoning(folder, reasoning_parser="qwen3") is None  # vLLM asks its parser.
    assert reasoning(tmp_path) is None
    with pytest.raises(ValueError, match="'reasoning_config' must be an object"):
        reasoning(folder, reasoning_config="<think>")


def test_as_many_adapters_as_are_named_fit_into_memory(tmp_path: Path) -> None:
    def room(sources: int = 0, **given: object) -> int | None:
        named = tuple(AdapterSource(str(number), "/a") for number in range(sources))
        options = EngineOptions("vllm", str(tmp_path), given, AdapterOptions(named))
        return engine_args(options).max_cpu_loras

    assert room() is None
    assert room(enable_lora=True) == 64
    assert room(70, enable_lora=True) == 70
    assert room(70, enable_lora=True, max_loras=80) == 80
    assert room(enable_lora=True, max_cpu_loras=2) == 2


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        ({}, "xgrammar"),
        ({"structured_outputs_config": {"disable_any_whitespace": True}}, "xgrammar"),
        ({"structured_outputs_config": {"backend": "auto"}}, "xgrammar"),
        ({"structured_outputs_config": {"backend": "guidance"}}, "guidance"),
    ],
)
def test_the_first_request_does_not_choose_the_backend_of_guides(
    tmp_path: Path, given: dict[str, object], backend: str
) -> None:
    config = engine_args(EngineOptions("vllm", str(tmp_path), given)).structured_outputs_config
    assert config.backend == backend
    assert config.disable_any_whitespace == ("disable_any_whitespace" in str(given))
    for wrong in ("xgrammar", {"backend": "other"}, {"bakend": "xgrammar"}):
        with pytest.raises(ValueError, match=r"structured_outputs_config|backend|bakend"):
            engine_args(EngineOptions("vllm", str(tmp_path), {"structured_outputs_config": wrong}))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        (config.SCHEDULER, Scheduler),
        (config.ASYNC_SCHEDULER, AsyncScheduler),
        (config.TABLE_SCHEDULER, Scheduler),
        (config.ASYNC_TABLE_SCHEDULER, AsyncScheduler),
        (config.CPU_WORKER, CPUWorker),
        (config.IMAGE_CPU_WORKER, LoraWorker),
        (config.LORA_CPU_WORKER, CPUWorker),
        (config.QUICK_END, object),
    ],
)
def test_vllm_finds_its_classes_by_name(name: str, base: type) -> None:
    assert issubclass(resolve_obj_by_qualname(name), base)


@pytest.mark.parametrize("given", [None, "operators.Own"])
def test_the_workers_of_a_model_of_embeddings_end_at_once(given: str | None) -> None:
    passed = {} if given is None else {"worker_extension_cls": given}
    args = pooling_args(EngineOptions("vllm", "/models/bge", passed))
    assert (args.runner, args.worker_extension_cls) == ("pooling", given or config.QUICK_END)


@pytest.mark.parametrize("worker", [config.CPU_WORKER, "a GPU's"])
def test_images_of_some_layers_only_need_a_gpu(worker: str) -> None:
    """Gemma 4's larger sizes on CPUs would be computed wrong; on GPUs vLLM does it."""
    given: Any = SimpleNamespace(
        scheduler_config=SimpleNamespace(
            long_prefill_token_threshold=0, scheduler_cls=None, async_scheduling=False, disable_chunked_mm_input=False
        ),
        model_config=SimpleNamespace(
            hf_config=SimpleNamespace(), hf_text_config=SimpleNamespace(use_bidirectional_attention="vision")
        ),
        parallel_config=SimpleNamespace(worker_cls=worker),
    )
    if worker == config.CPU_WORKER:
        with pytest.raises(ValueError, match="on GPUs only"):
            config._keep_images_whole(given)
        given.model_config.hf_text_config.use_bidirectional_attention = False
        config._keep_images_whole(given)
        assert given.parallel_config.worker_cls == config.IMAGE_CPU_WORKER
    else:
        config._keep_images_whole(given)
        assert given.parallel_config.worker_cls == worker


def test_a_process_of_vllm_that_imports_a_class_of_ours_knows_its_model() -> None:
    given = json.dumps([[name, architecture] for name, architecture, _ in KNOWN_MODELS])
    program = [sys.executable, "-c", WORKERS, given]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("engines.")]
    assert found == [module for _, _, module in KNOWN_MODELS], done.stderr


def test_the_launcher_finds_the_options_without_importing_vllm() -> None:
    assert vllm_options() >= config.KNOWN_OPTIONS


def test_refusals_of_vllm_are_one_line(tmp_path: Path, qwen3_tokenizer_dir: Path) -> None:
    folder = str(make_checkpoint("qwen2", qwen3_tokenizer_dir, tmp_path))
    for speculative, reason in (
        ({"method": "ngram"}, "num_speculative_tokens must be provided"),
        ({"method": "ngram", "num_speculative_tokens": 0}, "num_speculative_tokens: Input should be greater than 0"),
        ({"method": "ngram", "num_speculative_tokens": 2, "bogus": 1}, "bogus: Unexpected keyword argument"),
    ):
        options = EngineOptions("vllm", folder, {"speculative_config": speculative})
        with pytest.raises(ValueError, match=re.escape(f"engine options (SpeculativeConfig): {reason}")) as error:
            config.engine_config(engine_args(options))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="'speculative_config' must be an object, not str"):
        engine_args(EngineOptions("vllm", folder, {"speculative_config": "ngram"}))


def test_drafts_of_each_request_are_counted(tmp_path: Path) -> None:
    speculative = {"method": "ngram", "num_speculative_tokens": 2}
    for given, expected in (
        ({}, "none"),
        ({"speculative_config": speculative}, "summary"),
        ({"speculative_config": speculative, "per_request_spec_decode_metrics": "none"}, "none"),
    ):
        args = engine_args(EngineOptions("vllm", str(tmp_path), given))
        assert args.per_request_spec_decode_metrics == expected
