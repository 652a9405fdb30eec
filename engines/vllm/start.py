# SPDX-License-Identifier: Apache-2.0
"""Start vLLM's engine core and its workers, or connect to those of another process."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.network_utils import get_open_zmq_ipc_path
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.utils import launch_core_engines

from engines.dead_engine import exit_when_dead
from engines.vllm.forkserver import engine_core_from_server
from engines.vllm.statistics import VllmStatistics

# The sockets of one client of an engine core, by the names that vLLM gives them.
Addresses = dict[str, Any]
_INPUT, _OUTPUT = "input_address", "output_address"


def spawn_processes() -> None:
    """Let vLLM spawn its processes; to be called before its config is made.

    On GPUs it would fork this process, whose interpreter is a shared library: there torch's small operations, which
    dominate a small model's steps, took 1.6 times as long as in the program python3.
    """
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def client_addresses(count: int) -> list[Addresses]:
    """Addresses for so many clients of an engine core besides the one that starts it."""
    return [{_INPUT: get_open_zmq_ipc_path(), _OUTPUT: get_open_zmq_ipc_path()} for _ in range(count)]


def start_llm(
    args: AsyncEngineArgs, config: VllmConfig, statistics: VllmStatistics, others: Sequence[Addresses] = ()
) -> tuple[AsyncLLM, "asyncio.Task[None]"]:
    """Load the model and start the processes; returns the client, and a task that ends this process with them.

    others: the sockets of further clients, which may connect at any time.
    """
    with engine_core_from_server(), _clients_besides(others):
        return _connect(args, config, statistics, client_count=1 + len(others))


def join_llm(
    args: AsyncEngineArgs,
    config: VllmConfig,
    statistics: VllmStatistics,
    addresses: Addresses,
    index: int,
    count: int,
) -> tuple[AsyncLLM, "asyncio.Task[None]"]:
    """Connect to the engine core of another process; returns the same as `start_llm`.

    addresses: one of those given to `start_llm`. index: its number, counted from 1. count: of all clients.
    """
    return _connect(args, config, statistics, client_addresses=addresses, client_count=count, client_index=index)


def _connect(
    args: AsyncEngineArgs, config: VllmConfig, statistics: VllmStatistics, **client: Any
) -> tuple[AsyncLLM, "asyncio.Task[None]"]:
    llm = AsyncLLM.from_vllm_config(
        config,
        enable_log_requests=args.enable_log_requests,
        disable_log_stats=args.disable_log_stats,
        stat_loggers=[] if args.disable_log_stats else [statistics],
        **client,
    )
    return llm, asyncio.create_task(exit_when_dead(llm))


@contextmanager
def _clients_besides(others: Sequence[Addresses]) -> Iterator[None]:
    """Let the engine core that is started in the context serve further clients.

    vLLM's own way is a process that starts the engine core and is no client. Here it is one of them.
    """

    def launch_for_all(config: Any, executor: Any, log_stats: Any, addresses: Any, *more: Any, **named: Any) -> Any:
        addresses.inputs += [other[_INPUT] for other in others]
        addresses.outputs += [other[_OUTPUT] for other in others]
        return launch_core_engines(config, executor, log_stats, addresses, *more, **named)

    with mock.patch("vllm.v1.engine.core_client.launch_core_engines", launch_for_all):
        yield
