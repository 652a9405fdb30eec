# SPDX-License-Identifier: Apache-2.0
"""What vLLM tells of itself after each step, kept for Triton's metrics endpoint.

vLLM does not promise these fields, so that one it does not have counts as zero.
"""

from collections.abc import Mapping
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase


class EngineCoreStatistics(StatLoggerBase):
    """Of one engine core; there are several with data parallelism. Gauges are those of its last step."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.waiting = 0
        self.kv_cache_usage = 0.0
        self.looked_up = self.cached = self.preemptions = self.generated = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
        """Called by vLLM after each step."""
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
        """Nothing to say."""


class VllmStatistics:
    """The engine cores' statistics together. The object itself is the factory that vLLM asks for."""

    def __init__(self) -> None:
        self._cores: list[EngineCoreStatistics] = []

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> EngineCoreStatistics:
        """A new engine core's."""
        self._cores.append(EngineCoreStatistics(vllm_config, engine_index))
        return self._cores[-1]

    def values(self, inside: int) -> Mapping[str, float]:
        """By the names of `engine.STATISTICS`. inside: requests that the engine has now.

        An engine without requests makes no steps, and would be taken to wait for ever.
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
