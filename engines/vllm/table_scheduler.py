# SPDX-License-Identifier: Apache-2.0
"""vLLM's schedulers; the engine core, which needs a registered model as well, imports nothing else of ours."""

from typing import TYPE_CHECKING, Any

from vllm.config import VllmConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from engines.vllm.table_model import install

if TYPE_CHECKING:
    _Base = Scheduler
else:
    _Base = object


class _Registers(_Base):
    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        install(vllm_config.model_config.architecture)
        super().__init__(vllm_config, *args, **kwargs)


class TableScheduler(_Registers, Scheduler):
    """For engines that schedule a step when the last one has ended."""


class AsyncTableScheduler(_Registers, AsyncScheduler):
    """For engines that schedule one step ahead."""
