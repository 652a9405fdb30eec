# SPDX-License-Identifier: Apache-2.0
"""The models' metrics on Triton's endpoint, and what vLLM tells of itself."""

import importlib
import sys
import types
import weakref
from typing import Any

import pytest
from model_modules import model_modules

DESCRIPTIONS = {"running": "a gauge", "made_total": "a counter"}


class FakeFamily:
    """A metric family of Triton's that notes what is done to its one metric."""

    GAUGE, COUNTER = "gauge", "counter"
    made: dict[str, "FakeFamily"]

    def __init__(self, name: str, description: str, kind: str) -> None:
        self.kind, self.calls = kind, []
        FakeFamily.made[name] = self

    def Metric(self, labels: dict[str, str]) -> "FakeFamily":
        self.labels = labels
        return self

    def set(self, value: float) -> None:
        assert self.kind == self.GAUGE
        self.calls.append(value)

    def increment(self, value: float) -> None:
        assert self.kind == self.COUNTER
        self.calls.append(value)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Any:
    FakeFamily.made = {}
    backend = types.SimpleNamespace(MetricFamily=FakeFamily)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    monkeypatch.delitem(sys.modules, "preprocessing.triton_metrics", raising=False)
    module = importlib.import_module("preprocessing.triton_metrics")
    yield module
    sys.modules.pop("preprocessing.triton_metrics", None)


def test_only_what_changed_is_published(metrics: Any) -> None:
    published = metrics.Published("model", "prefix", DESCRIPTIONS)
    for running, made in ((0, 0), (0, 0), (2, 5), (2, 9), (0, 9)):
        published.set({"running": running, "made_total": made})
    assert FakeFamily.made["prefix_running"].calls == [0, 2, 0]
    assert FakeFamily.made["prefix_made_total"].calls == [0, 5, 4]
    assert FakeFamily.made["prefix_running"].labels == {"model": "model"}
    with pytest.raises(KeyError, match="unheard_of"):
        published.set({"unheard_of": 1})


def test_what_is_closed_holds_no_metric(metrics: Any) -> None:
    """A metric that Python's end takes away crashes the stub."""
    published = metrics.Published("model", "prefix", DESCRIPTIONS)
    published.set({"running": 1, "made_total": 2})
    gone = [weakref.ref(family) for family in FakeFamily.made.values()]
    FakeFamily.made.clear()
    assert all(family() is not None for family in gone)
    published.close()
    assert all(family() is None for family in gone)


def test_a_reporter_publishes_until_it_is_closed(metrics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.001)
    values = iter(range(1000))
    reporter = metrics.Reporter(metrics.Published("m", "p", DESCRIPTIONS), lambda: {"running": next(values)})
    while len(FakeFamily.made["p_running"].calls) < 3:
        pass
    reporter.close()
    calls = list(FakeFamily.made["p_running"].calls)
    assert calls == list(range(len(calls))) and next(values) == len(calls)


@pytest.fixture
def vllm_statistics(monkeypatch: pytest.MonkeyPatch) -> Any:
    with model_modules(monkeypatch, "tensorrt_llm"):
        yield importlib.import_module("vllm_statistics")


def test_what_vllm_tells_adds_up(vllm_statistics: Any) -> None:
    from engine import STATISTICS
    from vllm.v1.metrics.stats import IterationStats, PrefixCacheStats, SchedulerStats

    statistics = vllm_statistics.VllmStatistics()
    first, second = statistics(None, 0), statistics(None, 1)
    iteration = IterationStats()
    iteration.num_preempted_reqs, iteration.num_generation_tokens = 1, 20
    prefixes = PrefixCacheStats()
    prefixes.record(num_tokens=100, num_hits=64, preempted=False)
    for core, usage in ((first, 0.5), (second, 0.25)):
        scheduler = SchedulerStats(num_running_reqs=3, num_waiting_reqs=2, kv_cache_usage=usage)
        scheduler.prefix_cache_stats = prefixes
        core.record(scheduler, iteration, mm_cache_stats=None, engine_idx=0)
        core.record(None, None)
    assert statistics.values(inside=10) == {
        "running": 6,
        "waiting": 4,
        "kv_cache_usage": 0.5,
        "looked_up_prompt_tokens_total": 200,
        "cached_prompt_tokens_total": 128,
        "generated_tokens_total": 40,
        "preemptions_total": 2,
    }
    assert set(statistics.values(inside=0)) == set(STATISTICS)


def test_nobody_waits_in_an_empty_engine(vllm_statistics: Any) -> None:
    """The engine's last word may be of a step before its requests were cancelled."""
    statistics = vllm_statistics.VllmStatistics()
    statistics(None).record(types.SimpleNamespace(num_waiting_reqs=5), None)
    assert [statistics.values(inside)["waiting"] for inside in (8, 3, 0)] == [5, 3, 0]
    assert [statistics.values(inside)["running"] for inside in (8, 3, 0)] == [3, 0, 0]


def test_another_vllm_may_tell_less(vllm_statistics: Any) -> None:
    statistics = vllm_statistics.VllmStatistics()
    statistics(None).record(types.SimpleNamespace(), types.SimpleNamespace(num_generation_tokens=None), object())
    assert statistics.values(inside=1) == dict.fromkeys(statistics.values(0), 0) | {"running": 1}
