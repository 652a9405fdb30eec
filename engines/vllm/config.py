# SPDX-License-Identifier: Apache-2.0
"""Turn the engine's options into vLLM's configuration."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from vllm.config import ModelConfig, ReasoningConfig, StructuredOutputsConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext

from common.checkpoint import Checkpoint, read_json
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from engines.adapters import ROOM
from engines.options import EngineOptions, refuse_unknown
from engines.vllm import gemma3, table_model
from families.detection import find_styler

KNOWN_OPTIONS = frozenset(field.name for field in dataclasses.fields(AsyncEngineArgs)) - {"model"}
CPU_WORKER = "vllm.v1.worker.cpu_worker.CPUWorker"
# The backend of structured outputs, and vLLM's name for no fixed one.
BACKEND, AUTO = "xgrammar", "auto"
# Ours, by the names under which vLLM's processes import them.
GEMMA3_EXTENSION = "engines.vllm.gemma3_worker.Extension"
QUICK_END = "engines.vllm.quick_end.Extension"
IMAGE_CPU_WORKER = "engines.vllm.cpu_worker.ImageWorker"
LORA_CPU_WORKER = "engines.vllm.cpu_lora.LoraWorker"
SCHEDULER = "engines.vllm.scheduler.WholeImageScheduler"
ASYNC_SCHEDULER = "engines.vllm.scheduler.AsyncWholeImageScheduler"
# vLLM 0.25 does not have it.
_DRAFT_COUNTS = "per_request_spec_decode_metrics"
_OF_THE_ENGINE = ("structured_outputs_config", "reasoning_config", "mm_processor_cache_gb")
# The architecture's name follows.
TABLE_EXTENSION = "engines.vllm.table_worker."
TABLE_SCHEDULER = "engines.vllm.table_scheduler.TableScheduler"
ASYNC_TABLE_SCHEDULER = "engines.vllm.table_scheduler.AsyncTableScheduler"


def engine_args(options: EngineOptions) -> AsyncEngineArgs:
    """Build vLLM's arguments; raises ValueError naming an option that vLLM does not have."""
    refuse_unknown(options.passed, KNOWN_OPTIONS)
    given = {**_defaults(Path(options.model_path)), **options.passed}
    given["structured_outputs_config"] = _structured_outputs(given.get("structured_outputs_config"))
    given["reasoning_config"] = _reasoning(given, Path(options.model_path))
    speculative = given.get("speculative_config")
    if speculative is not None and not isinstance(speculative, dict):
        raise ValueError(f"engine option 'speculative_config' must be an object, not {type(speculative).__name__}")
    if speculative and _DRAFT_COUNTS in KNOWN_OPTIONS:
        given.setdefault(_DRAFT_COUNTS, "summary")
    if given.get("enable_lora"):
        # vLLM would read an adapter beyond max_cpu_loras from its folder whenever a request needs it, and die if it
        # has gone: here that is the limit of loaded adapters, so vLLM's default of max_loras would be too small.
        given.setdefault("max_cpu_loras", max(ROOM, len(options.adapters.sources), given.get("max_loras", 1)))
    return AsyncEngineArgs(model=options.model_path, **given)


def processor_config(options: EngineOptions) -> ModelConfig:
    """Build the part of vLLM's configuration that a checkpoint's processor of pictures reads.

    Raises ValueError naming an option that vLLM does not have, unless they are another engine's.
    """
    if options.engine == "vllm":
        refuse_unknown(options.passed, KNOWN_OPTIONS)
    # They need the checkpoint's tokenizer, and are for the engine only.
    given = {name: options.passed[name] for name in (KNOWN_OPTIONS & options.passed.keys()).difference(_OF_THE_ENGINE)}
    return AsyncEngineArgs(model=options.model_path, **given).create_model_config()


def engine_config(args: AsyncEngineArgs) -> VllmConfig:
    """Build vLLM's configuration, with our model classes, schedulers and workers for images.

    Raises ValueError in one line for options that vLLM refuses, and if the model takes no prompt embeddings and the
    options want it to.
    """
    architectures = read_json(Path(args.model) / "config.json").get("architectures", ())
    # Instead of vLLM's own prompt embeddings: see table_model.py.
    takes_tables, args.enable_prompt_embeds = args.enable_prompt_embeds, False
    if takes_tables:
        architecture = next(iter(architectures), "")
        table_model.install(architecture)
        args.worker_extension_cls = args.worker_extension_cls or TABLE_EXTENSION + architecture
    elif gemma3.ARCHITECTURE in architectures:
        gemma3.install()
        args.worker_extension_cls = args.worker_extension_cls or GEMMA3_EXTENSION
    else:
        # Pictures arrive processed: vLLM's cache of them would hold copies. That of `preprocessing` has this size.
        args.mm_processor_cache_gb = 0
        args.worker_extension_cls = args.worker_extension_cls or QUICK_END
    # The usage context sets the defaults of tokens per step and requests per batch: the same as in `vllm serve`.
    try:
        config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
    except ValidationError as error:
        raise ValueError(_refusal(error)) from error
    if config.model_config.is_multimodal_model and config.model_config.is_mm_prefix_lm:
        _keep_images_whole(config)
    if config.lora_config is not None and config.parallel_config.worker_cls == CPU_WORKER:
        config.parallel_config.worker_cls = LORA_CPU_WORKER
    scheduler = config.scheduler_config
    if takes_tables and scheduler.scheduler_cls is None:
        scheduler.scheduler_cls = ASYNC_TABLE_SCHEDULER if scheduler.async_scheduling else TABLE_SCHEDULER
    return config


def _refusal(error: ValidationError) -> str:
    """What vLLM refuses, without pydantic's links and copies of the input."""
    found = [
        (*map(str, one["loc"]), " ".join(one["msg"].removeprefix("Value error, ").split())) for one in error.errors()
    ]
    return f"engine options ({error.title}): {'; '.join(': '.join(parts) for parts in found)}"


def _structured_outputs(given: Any) -> StructuredOutputsConfig:
    """The option structured_outputs_config with one backend for all requests.

    vLLM's "auto" keeps for its lifetime the backend that suited the first constrained request.
    """
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"engine option 'structured_outputs_config' must be an object, not {type(given).__name__}")
    config = {} if given is None else given
    own = {"backend": BACKEND} if config.get("backend", AUTO) == AUTO else {}
    return StructuredOutputsConfig(**{**config, **own})


def _reasoning(options: Mapping[str, Any], checkpoint: Path) -> ReasoningConfig | None:
    """The option reasoning_config, by default with the markers of the checkpoint's family.

    vLLM closes the reasoning with them when a request's `thinking_token_budget` is used up.
    """
    given = options.get("reasoning_config")
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"engine option 'reasoning_config' must be an object, not {type(given).__name__}")
    if given is not None:
        return ReasoningConfig(**given)
    markers = None if options.get("reasoning_parser") else _markers(checkpoint)
    return ReasoningConfig(reasoning_start_str=markers[0], reasoning_end_str=markers[1]) if markers else None


def _markers(checkpoint: Path) -> tuple[str, str] | None:
    """The markers around reasoning; None if the family has none, or the checkpoint is for prompts of ids only."""
    try:
        styler = find_styler(Checkpoint.load(checkpoint))
        return styler.answer_format(ChatTokenizer.load(checkpoint)).reasoning_tags
    except (ValueError, RequestError):
        return None


def _defaults(checkpoint: Path) -> dict[str, Any]:
    """Defaults that this project's requests need."""
    # A language model split from its vision tower gets its images as rows of a table; see engine_config.
    embeds = {"enable_prompt_embeds": True} if (checkpoint / "vision" / "config.json").is_file() else {}
    # Images arrive processed and bypass the cache of vLLM's image processor, whose engine side would copy them all.
    return {"mm_processor_cache_gb": 0, **embeds}


def _keep_images_whole(config: VllmConfig) -> None:
    scheduler = config.scheduler_config
    tokens = getattr(config.model_config.hf_config, "mm_tokens_per_image", 0)
    if 0 < scheduler.long_prefill_token_threshold < tokens:
        raise ValueError(f"long_prefill_token_threshold must be 0 or at least {tokens}, the tokens of an image")
    # With it vLLM also checks at the start that an image fits into max_num_batched_tokens.
    scheduler.disable_chunked_mm_input = True
    if scheduler.scheduler_cls is None:
        scheduler.scheduler_cls = ASYNC_SCHEDULER if scheduler.async_scheduling else SCHEDULER
    if config.parallel_config.worker_cls == CPU_WORKER:
        # Gemma 4's larger sizes: in both directions in layers with a sliding window, and not in the others. The worker
        # treats all layers alike.
        if getattr(config.model_config.hf_text_config, "use_bidirectional_attention", None) == "vision":
            raise ValueError(
                "this model's images attend in both directions in some of its layers, which is computed on GPUs only: "
                "serve it there, or without images (--vision none --language-model-only)"
            )
        config.parallel_config.worker_cls = IMAGE_CPU_WORKER
