# SPDX-License-Identifier: Apache-2.0
"""Collect vLLM's statistics of each step for Triton's metrics endpoint.

These fields are no stable interface of vLLM: a missing one counts as zero.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger, StatLoggerBase

from common.engine_statistics import MAX_LORA, RUNNING_ADAPTERS, WAITING_ADAPTERS

# Of one engine core: the values of its last step, and sums.
_GAUGES = ("waiting", "kv_cache_usage")
# By name, with the requests of this client only.
_ADAPTERS = ("running_adapters", "waiting_adapters")
_COUNTERS = ("looked_up", "cached", "preemptions", "generated", "drafts", "draft_tokens", "accepted")


class EngineCoreStatistics(StatLoggerBase):
    """Statistics of one engine core; data parallelism has several. Gauges are those of the core's last step.

    An engine core with several clients tells each of them a part: of each step one.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        # When the gauges were told, on the clock of all processes.
        self.at = 0.0
        self.waiting = 0
        self.kv_cache_usage = 0.0
        self.running_adapters: Mapping[str, int] = {}
        self.waiting_adapters: Mapping[str, int] = {}
        self.looked_up = self.cached = self.preemptions = self.generated = 0
        self.drafts = self.draft_tokens = self.accepted = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
        """Add the statistics of one step; called by vLLM."""
        if scheduler_stats is not None:
            self.at = time.monotonic()
            # The skipped ones wait for something else than room, such as the place of their adapter.
            self.waiting = _number(scheduler_stats, "num_waiting_reqs")
            self.waiting += _number(scheduler_stats, "num_skipped_waiting_reqs")
            self.running_adapters = getattr(scheduler_stats, "running_lora_adapters", {})
            self.waiting_adapters = getattr(scheduler_stats, "waiting_lora_adapters", {})
            self.kv_cache_usage = _number(scheduler_stats, "kv_cache_usage")
            prefixes = getattr(scheduler_stats, "prefix_cache_stats", None)
            self.looked_up += _number(prefixes, "queries")
            self.cached += _number(prefixes, "hits")
            drafts = getattr(scheduler_stats, "spec_decoding_stats", None)
            self.drafts += _number(drafts, "num_drafts")
            self.draft_tokens += _number(drafts, "num_draft_tokens")
            self.accepted += _number(drafts, "num_accepted_tokens")
        if iteration_stats is not None:
            self.preemptions += _number(iteration_stats, "num_preempted_reqs")
            self.generated += _number(iteration_stats, "num_generation_tokens")

    def report(self) -> dict[str, Any]:
        """The values, with `at`."""
        return {name: getattr(self, name) for name in ("at", *_GAUGES, *_ADAPTERS, *_COUNTERS)}

    def log_engine_initialized(self) -> None:
        """Do nothing."""


class VllmStatistics:
    """Statistics of all engine cores together. The object itself is the logger factory that vLLM expects."""

    def __init__(self) -> None:
        self._cores: list[EngineCoreStatistics] = []
        self._config: Any = None

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> EngineCoreStatistics:
        """Create the statistics of a new engine core."""
        self._config = vllm_config
        self._cores.append(EngineCoreStatistics(vllm_config, engine_index))
        return self._cores[-1]

    def report(self, inside: int) -> dict[str, Any]:
        """What this process knows, for another client of the same engine cores; `inside` as in `values`."""
        cores = [core.report() for core in self._cores]
        if not inside:
            # vLLM tells a client without requests nothing more, so that these would stay.
            for core in cores:
                core |= {name: {} for name in _ADAPTERS}
        return {"inside": inside, "cores": cores}

    def values(self, inside: int, others: Sequence[Mapping[str, Any]] = ()) -> Mapping[str, float]:
        """The values by the names of `engine.STATISTICS`, without those that are not known.

        inside: requests in the engine now. It caps `waiting`, as an engine without requests makes no further step.
        others: the reports of the other clients.
        """
        inside, cores = self._together(inside, others)
        if not cores:
            # The option disable_log_stats: vLLM tells nothing.
            return {"running": inside}
        waiting = min(inside, sum(core["waiting"] for core in cores))
        return (
            {
                "running": inside - waiting,
                "waiting": waiting,
                "kv_cache_usage": max(core["kv_cache_usage"] for core in cores),
                "looked_up_prompt_tokens_total": sum(core["looked_up"] for core in cores),
                "cached_prompt_tokens_total": sum(core["cached"] for core in cores),
                "generated_tokens_total": sum(core["generated"] for core in cores),
                "preemptions_total": sum(core["preemptions"] for core in cores),
            }
            | self._cache()
            | self._drafts(cores)
        )

    def adapters(self, inside: int, others: Sequence[Mapping[str, Any]] = ()) -> Mapping[str, Any]:
        """The values of LORA; empty if the engine takes no adapters. The arguments are those of `values`."""
        lora = getattr(self._config, "lora_config", None)
        if lora is None:
            return {}
        _, cores = self._together(inside, others)
        return {
            MAX_LORA: lora.max_loras,
            RUNNING_ADAPTERS: _in_use(core["running_adapters"] for core in cores),
            WAITING_ADAPTERS: _in_use(core["waiting_adapters"] for core in cores),
        }

    def _together(self, inside: int, others: Sequence[Mapping[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        """The requests inside, and the values of each engine core, of all clients together."""
        told = [self.report(inside)["cores"], *(other["cores"] for other in others)]
        return inside + sum(other["inside"] for other in others), [_merged(parts) for parts in zip(*told, strict=False)]

    def _drafts(self, cores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """What speculative decoding has done; empty without it."""
        if getattr(self._config, "speculative_config", None) is None:
            return {}
        return {
            "drafts_total": sum(core["drafts"] for core in cores),
            "draft_tokens_total": sum(core["draft_tokens"] for core in cores),
            "accepted_draft_tokens_total": sum(core["accepted"] for core in cores),
        }

    def _cache(self) -> dict[str, float]:
        """The size of the KV cache, which vLLM knows once it has loaded the model."""
        cache = getattr(self._config, "cache_config", None)
        sizes = {
            "kv_cache_blocks": _number(cache, "num_gpu_blocks"),
            "kv_cache_block_size": _number(cache, "block_size"),
        }
        return {name: size for name, size in sizes.items() if size}


def drop_prometheus(manager: Any) -> None:
    """Take vLLM's own Prometheus metrics out of its `StatLoggerManager`, or None if it has none.

    Nothing here publishes them, and a histogram is updated for each token.
    """
    if manager is not None:
        kept = [logger for logger in manager.stat_loggers if not isinstance(logger, PrometheusStatLogger)]
        manager.stat_loggers[:] = kept


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One engine core as its clients know it: the latest gauges, and the sums of what each knows by itself."""
    latest = max(parts, key=itemgetter("at"))
    adapters = {name: dict(sum((Counter(part[name]) for part in parts), Counter[str]())) for name in _ADAPTERS}
    return latest | {name: sum(part[name] for part in parts) for name in _COUNTERS} | adapters


def _in_use(counts: Iterable[Mapping[str, int]]) -> list[str]:
    """The names of adapters that have requests, in the order of the alphabet.

    To vLLM an adapter is called NAME#ID.
    """
    return sorted({name.rpartition("#")[0] or name for count in counts for name, requests in count.items() if requests})


def _number(stats: Any, name: str) -> Any:
    return getattr(stats, name, None) or 0
