# SPDX-License-Identifier: Apache-2.0
"""Collect vLLM's statistics of each step for Triton's metrics endpoint.

These fields are no stable interface of vLLM: a missing one counts as zero.
"""

from collections.abc import Mapping
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase


class EngineCoreStatistics(StatLoggerBase):
    """Statistics of one engine core; data parallelism has several. Gauges are those of the core's last step."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.waiting = 0
        self.kv_cache_usage = 0.0
        self.looked_up = self.cached = self.preemptions = self.generated = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
        """Add the statistics of one step; called by vLLM."""
        if scheduler_stats is not None:
            self.waiting = _number(scheduler_stats, "num_waiting_reqs")
            self.kv_cache_usage = _number(scheduler_stats, "kv_cache_usage")
            prefixes = getattr(scheduler_stats, "prefix_cache_stats", None)
            self.looked_up += _number(prefixes, "queries")
            self.cached += _number(prefixes, "hits")
        if iteration_stats is not None:
            self.preemptions += _number(iteration_stats, "num_preempted_reqs")
            self.generated += _number(iteration_stats, "num_generation_tokens")

    def log_engine_initialized(self) -> None:
        """Do nothing."""


class VllmStatistics:
    """Statistics of all engine cores together. The object itself is the logger factory that vLLM expects."""

    def __init__(self) -> None:
        self._cores: list[EngineCoreStatistics] = []

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> EngineCoreStatistics:
        """Create the statistics of a new engine core."""
        self._cores.append(EngineCoreStatistics(vllm_config, engine_index))
        return self._cores[-1]

    def values(self, inside: int) -> Mapping[str, float]:
        """The values by the names of `engine.STATISTICS`.

        inside: requests in the engine now. It caps `waiting`, as an engine without requests makes no further step.
        """
        waiting = min(inside, sum(core.waiting for core in self._cores))
        return {
            "running": inside - waiting,
            "waiting": waiting,
            "kv_cache_usage": max((core.kv_cache_usage for core in self._cores), default=0.0),
            "looked_up_prompt_tokens_total": sum(core.looked_up for core in self._cores),
            "cached_prompt_tokens_total": sum(core.cached for core in self._cores),
            "generated_tokens_total": sum(core.generated for core in self._cores),
            "preemptions_total": sum(core.preemptions for core in self._cores),
        }


def _number(stats: Any, name: str) -> Any:
    return getattr(stats, name, None) or 0
