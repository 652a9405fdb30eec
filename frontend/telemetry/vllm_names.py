# SPDX-License-Identifier: Apache-2.0
"""The load of each served model under vLLM's names, which endpoint pickers and routers read.

Types, labels and meanings are those of vLLM 0.32. The names with `gpu_` are older ones of vLLM, which the router of its
production stack still reads. What is not known is left out.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.engine_statistics import LORA, MAX_LORA, RUNNING_ADAPTERS, WAITING_ADAPTERS

# Name -> the statistic of the engine, and its description.
GAUGES = {
    "vllm:num_requests_running": ("running", "Requests that the engine is processing"),
    "vllm:kv_cache_usage_perc": ("kv_cache_usage", "Share of the KV cache in use, 0 to 1"),
    "vllm:gpu_cache_usage_perc": ("kv_cache_usage", "The same, under the older name"),
}
COUNTERS = {
    "vllm:prefix_cache_queries": ("looked_up_prompt_tokens_total", "Prompt tokens looked up in the prefix cache"),
    "vllm:prefix_cache_hits": ("cached_prompt_tokens_total", "Prompt tokens served from the prefix cache"),
    "vllm:gpu_prefix_cache_queries": ("looked_up_prompt_tokens_total", "The same as prefix_cache_queries"),
    "vllm:gpu_prefix_cache_hits": ("cached_prompt_tokens_total", "The same as prefix_cache_hits"),
    "vllm:spec_decode_num_drafts": ("drafts_total", "Drafts of speculative decoding"),
    "vllm:spec_decode_num_draft_tokens": ("draft_tokens_total", "Tokens of these drafts"),
    "vllm:spec_decode_num_accepted_tokens": ("accepted_draft_tokens_total", "Those of them that were accepted"),
}
# Label -> the statistic.
CACHE = {"block_size": "kv_cache_block_size", "num_gpu_blocks": "kv_cache_blocks"}


class VllmNames:
    """A collector of these metrics. engines: statistics by served model. queued: requests queued in all frontends."""

    def __init__(self, engines: Mapping[str, Mapping[str, Any]], queued: Mapping[str, float]) -> None:
        self._engines = engines
        self._queued = queued

    def collect(self) -> Iterator[Metric]:
        """Make the metrics; called by prometheus_client."""
        for name, (key, about) in GAUGES.items():
            yield self._family(GaugeMetricFamily(name, about, labels=["model_name"]), key)
        for name, (key, about) in COUNTERS.items():
            yield self._family(CounterMetricFamily(name, about, labels=["model_name"]), key)
        yield self._waiting()
        yield self._cache()
        yield self._adapters()

    def _family(self, family: GaugeMetricFamily | CounterMetricFamily, key: str) -> Metric:
        for model, statistics in self._engines.items():
            if key in statistics:
                family.add_metric([model], statistics[key])
        return family

    def _waiting(self) -> Metric:
        """Count requests that wait in the engine, and those that no frontend has sent to it yet."""
        family = GaugeMetricFamily(
            "vllm:num_requests_waiting",
            "Requests queued in the frontends or waiting in the engine",
            labels=["model_name"],
        )
        for model, statistics in self._engines.items():
            if "waiting" in statistics:
                family.add_metric([model], statistics["waiting"] + self._queued.get(model, 0))
        return family

    def _cache(self) -> Metric:
        about = "Size of the KV cache; the value is always 1"
        family = GaugeMetricFamily("vllm:cache_config_info", about, labels=[*CACHE, "model_name"])
        for model, statistics in self._engines.items():
            if all(statistics.get(key) for key in CACHE.values()):
                family.add_metric([*(f"{statistics[key]:.0f}" for key in CACHE.values()), model], 1)
        return family

    def _adapters(self) -> Metric:
        """Tell the adapters in use. The value is the time, as readers of vLLM's many series take the latest."""
        about = "LoRA adapters with running and with waiting requests; the value is the Unix time"
        family = GaugeMetricFamily("vllm:lora_requests_info", about, labels=[*LORA, "model_name"])
        for model, statistics in self._engines.items():
            if all(key in statistics for key in LORA):
                adapters = (",".join(statistics[key]) for key in (RUNNING_ADAPTERS, WAITING_ADAPTERS))
                family.add_metric([str(statistics[MAX_LORA]), *adapters, model], time.time())
        return family
