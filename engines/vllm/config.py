# SPDX-License-Identifier: Apache-2.0
"""From the engine's options to vLLM's configuration."""

import dataclasses
from pathlib import Path
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext

from common.checkpoint import read_json
from engines.options import EngineOptions, refuse_unknown
from engines.vllm import gemma3

KNOWN_OPTIONS = frozenset(field.name for field in dataclasses.fields(AsyncEngineArgs)) - {"model"}
CPU_WORKER = "vllm.v1.worker.cpu_worker.CPUWorker"


def engine_args(options: EngineOptions) -> AsyncEngineArgs:
    """vLLM's arguments; raises ValueError naming an option that it does not have."""
    refuse_unknown(options.passed, KNOWN_OPTIONS)
    return AsyncEngineArgs(model=options.model_path, **{**_defaults(Path(options.model_path)), **options.passed})


def engine_config(args: AsyncEngineArgs) -> VllmConfig:
    """vLLM's configuration, changed where a model whose image tokens see each other needs it."""
    if gemma3.ARCHITECTURE in read_json(Path(args.model) / "config.json").get("architectures", ()):
        gemma3.install()
        args.worker_extension_cls = args.worker_extension_cls or "engines.vllm.gemma3_worker.Extension"
    # The use decides how many tokens a step and requests a batch may hold: as in `vllm serve`.
    config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
    if config.model_config.is_multimodal_model and config.model_config.is_mm_prefix_lm:
        _keep_images_whole(config)
    return config


def _defaults(checkpoint: Path) -> dict[str, Any]:
    """What this project's requests need, unless the options say otherwise."""
    # A language model split from its vision tower gets its images as prompt embeddings.
    embeds = {"enable_prompt_embeds": True} if (checkpoint / "vision" / "config.json").is_file() else {}
    # Pictures come processed, past the cache of vLLM's image processor; its engine side would keep copies of them all.
    return {"mm_processor_cache_gb": 0, **embeds}


def _keep_images_whole(config: VllmConfig) -> None:
    scheduler = config.scheduler_config
    tokens = getattr(config.model_config.hf_config, "mm_tokens_per_image", 0)
    if 0 < scheduler.long_prefill_token_threshold < tokens:
        raise ValueError(f"long_prefill_token_threshold must be 0 or at least {tokens}, the tokens of an image")
    # Checks at the start, too, that a picture fits into max_num_batched_tokens.
    scheduler.disable_chunked_mm_input = True
    if scheduler.scheduler_cls is None:
        kind = "AsyncWholeImageScheduler" if scheduler.async_scheduling else "WholeImageScheduler"
        scheduler.scheduler_cls = f"engines.vllm.scheduler.{kind}"
    if config.parallel_config.worker_cls == CPU_WORKER:
        config.parallel_config.worker_cls = "engines.vllm.cpu_worker.ImageWorker"
