# SPDX-License-Identifier: Apache-2.0
"""What vLLM reports of itself, as the engine's statistics."""

import json
import types

from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, PrefixCacheStats, SchedulerStats
from vllm.v1.spec_decode.metrics import SpecDecodingStats

from engines.engine import STATISTICS
from engines.vllm.statistics import VllmStatistics, drop_prometheus

CACHE = types.SimpleNamespace(num_gpu_blocks=1000, block_size=16)


def test_statistics_of_all_cores_are_added_up() -> None:
    statistics = VllmStatistics()
    config = types.SimpleNamespace(cache_config=CACHE)
    first, second = statistics(config, 0), statistics(config, 1)
    iteration = IterationStats()
    iteration.num_preempted_reqs, iteration.num_generation_tokens = 1, 20
    prefixes = PrefixCacheStats()
    prefixes.record(num_tokens=100, num_hits=64, preempted=False)
    for core, usage in ((first, 0.5), (second, 0.25)):
        scheduler = SchedulerStats(
            num_running_reqs=3, num_waiting_reqs=1, num_skipped_waiting_reqs=1, kv_cache_usage=usage
        )
        scheduler.prefix_cache_stats = prefixes
        core.record(scheduler, iteration, mm_cache_stats=None, engine_idx=0)
        core.record(None, None)
    assert statistics.values(inside=10) == {
        "running": 6,
        "waiting": 4,
        "kv_cache_usage": 0.5,
        "kv_cache_blocks": 1000,
        "kv_cache_block_size": 16,
        "looked_up_prompt_tokens_total": 200,
        "cached_prompt_tokens_total": 128,
        "generated_tokens_total": 40,
        "preemptions_total": 2,
    }
    drafts = {"drafts_total", "draft_tokens_total", "accepted_draft_tokens_total"}
    assert set(statistics.values(inside=0)) == set(STATISTICS) - drafts


def test_drafts_of_speculative_decoding_are_counted() -> None:
    statistics = VllmStatistics()
    config = types.SimpleNamespace(cache_config=CACHE, speculative_config=object())
    for core in (statistics(config, 0), statistics(config, 1)):
        for accepted in (3, 0):
            step = SchedulerStats()
            step.spec_decoding_stats = SpecDecodingStats.new(4)
            step.spec_decoding_stats.observe_draft(num_draft_tokens=4, num_accepted_tokens=accepted)
            core.record(step, None)
        core.record(SchedulerStats(), None)
    values = statistics.values(inside=0)
    assert set(values) == set(STATISTICS)
    assert (values["drafts_total"], values["draft_tokens_total"], values["accepted_draft_tokens_total"]) == (4, 16, 6)


def test_what_vllm_does_not_tell_is_left_out() -> None:
    """With disable_log_stats vLLM makes no logger; before the model is loaded it knows no number of blocks."""
    statistics = VllmStatistics()
    assert statistics.values(inside=2) == {"running": 2}
    statistics(types.SimpleNamespace(cache_config=types.SimpleNamespace(num_gpu_blocks=None, block_size=16)))
    assert {"kv_cache_blocks", "kv_cache_block_size"} & set(statistics.values(inside=0)) == {"kv_cache_block_size"}


def test_adapters_in_use_are_those_of_the_last_step() -> None:
    statistics = VllmStatistics()
    assert statistics.adapters(inside=1) == {}
    core = statistics(types.SimpleNamespace(lora_config=types.SimpleNamespace(max_loras=2)))
    step = SchedulerStats()
    step.running_lora_adapters, step.waiting_lora_adapters = {"b#2": 1, "a#1": 2, "c": 0}, {"a#1": 0, "c": 3}
    core.record(step, None)
    use = {"max_lora": 2, "running_lora_adapters": ["a", "b"], "waiting_lora_adapters": ["c"]}
    assert statistics.adapters(inside=6) == use
    assert statistics.adapters(inside=0) == use | {"running_lora_adapters": [], "waiting_lora_adapters": []}


def test_an_empty_engine_has_no_waiting_requests() -> None:
    """The engine's last step may have been before its requests were cancelled."""
    statistics = VllmStatistics()
    statistics(None).record(types.SimpleNamespace(num_waiting_reqs=5), None)
    assert [statistics.values(inside)["waiting"] for inside in (8, 3, 0)] == [5, 3, 0]
    assert [statistics.values(inside)["running"] for inside in (8, 3, 0)] == [3, 0, 0]


def test_fields_that_vllm_lacks_count_as_zero() -> None:
    statistics = VllmStatistics()
    statistics(None).record(types.SimpleNamespace(), types.SimpleNamespace(num_generation_tokens=None), object())
    assert statistics.values(inside=1) == dict.fromkeys(statistics.values(0), 0) | {"running": 1}


def test_vllms_own_prometheus_metrics_are_dropped() -> None:
    own, prometheus = object(), object.__new__(PrometheusStatLogger)
    manager = types.SimpleNamespace(stat_loggers=[own, prometheus])
    drop_prometheus(manager)
    assert manager.stat_loggers == [own]
    drop_prometheus(None)


def test_the_clients_of_one_core_know_it_together() -> None:
    """vLLM tells each step to one of them: counters and adapters add up, and gauges are those of the last step."""
    config = types.SimpleNamespace(cache_config=CACHE, lora_config=types.SimpleNamespace(max_loras=2))
    clients = [VllmStatistics(), VllmStatistics()]
    for client, waiting, tokens in zip(clients, (9, 1), (20, 5), strict=True):
        step, iteration = SchedulerStats(num_waiting_reqs=waiting, kv_cache_usage=waiting / 10), IterationStats()
        step.running_lora_adapters = {f"a{waiting}#1": 1}
        iteration.num_generation_tokens = tokens
        client(config).record(step, iteration)
    reports = [json.loads(json.dumps(client.report(inside))) for client, inside in zip(clients, (4, 3), strict=True)]
    for values, adapters in (
        (clients[0].values(4, [reports[1]]), clients[0].adapters(4, [reports[1]])),
        (clients[1].values(3, [reports[0]]), clients[1].adapters(3, [reports[0]])),
    ):
        assert (values["running"], values["waiting"], values["kv_cache_usage"]) == (6, 1, 0.1)
        assert values["generated_tokens_total"] == 25
        # vLLM tells each client of its own requests only.
        assert adapters["running_lora_adapters"] == ["a1", "a9"]
    assert clients[0].adapters(4, [clients[1].report(0)])["running_lora_adapters"] == ["a9"]
    assert VllmStatistics().values(2, [VllmStatistics().report(3)]) == {"running": 5}
