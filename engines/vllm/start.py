# SPDX-License-Identifier: Apache-2.0
"""Start vLLM's engine core and its workers."""

import asyncio
import os

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from engines.dead_engine import exit_when_dead
from engines.vllm.forkserver import engine_core_from_server
from engines.vllm.statistics import VllmStatistics


def spawn_processes() -> None:
    """Let vLLM spawn its processes; to be called before its config is made.

    On GPUs it would fork this process, whose interpreter is a shared library: there torch's small operations, which
    dominate a small model's steps, took 1.6 times as long as in the program python3.
    """
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def start_llm(
    args: AsyncEngineArgs, config: VllmConfig, statistics: VllmStatistics
) -> tuple[AsyncLLM, "asyncio.Task[None]"]:
    """Load the model and start the processes; returns the client, and a task that ends this process with them."""
    with engine_core_from_server():
        llm = AsyncLLM.from_vllm_config(
            config,
            enable_log_requests=args.enable_log_requests,
            disable_log_stats=args.disable_log_stats,
            stat_loggers=[] if args.disable_log_stats else [statistics],
        )
    return llm, asyncio.create_task(exit_when_dead(llm))
