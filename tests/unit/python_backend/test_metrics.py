# SPDX-License-Identifier: Apache-2.0
"""The models' metrics on Triton's endpoint."""

import gc
import logging
import time
import weakref
from collections.abc import Iterator

import pytest
from triton_python_backend_utils import MetricFamily

from python_backend import metrics

LOG = logging.getLogger(__name__)
DESCRIPTIONS = {"running": "a gauge", "made_total": "a counter"}


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, MetricFamily]:
    """The metric families that the code under test makes, by name."""
    families: dict[str, MetricFamily] = {}
    monkeypatch.setattr(MetricFamily, "made", families)
    return families


def test_only_what_changed_is_published(made: dict[str, MetricFamily]) -> None:
    published = metrics.Published("model", "prefix", DESCRIPTIONS)
    for running, total in ((0, 0), (0, 0), (2, 5), (2, 9), (0, 9)):
        published.set({"running": running, "made_total": total})
    assert made["prefix_running"].calls == [0, 2, 0]
    assert made["prefix_made_total"].calls == [0, 5, 4]
    assert made["prefix_running"].labels == {"model": "model"}
    with pytest.raises(KeyError, match="unheard_of"):
        published.set({"unheard_of": 1})


def test_closing_keeps_all_metrics_for_ever_and_sets_gauges_to_0(made: dict[str, MetricFamily]) -> None:
    """Triton shares a metric between processes that publish the same one, and the stub crashes if Python deletes it."""
    published = metrics.Published("model", "prefix", DESCRIPTIONS)
    published.set({"running": 1, "made_total": 2})
    kept = [weakref.ref(family) for family in made.values()]
    running, total = made["prefix_running"].calls, made["prefix_made_total"].calls
    made.clear()
    published.close()
    del published
    gc.collect()
    assert all(family() is not None for family in kept)
    assert (running, total) == ([1, 0], [2])


def test_a_reporter_publishes_until_it_is_closed(
    made: dict[str, MetricFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.001)
    values = iter(range(1000))
    reporter = metrics.Reporter(metrics.Published("m", "p", DESCRIPTIONS), lambda: {"running": next(values)}, LOG)
    while len(made["p_running"].calls) < 3:
        pass
    reporter.close()
    *calls, last = made["p_running"].calls
    assert calls == list(range(len(calls))) and next(values) == len(calls) and last == 0


def test_a_reporter_goes_on_after_a_failure(
    made: dict[str, MetricFamily], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "PERIOD_S", 0.001)

    def values() -> Iterator[dict[str, float]]:
        yield {"running": 1}
        yield {"unheard_of": 1}
        yield {"unheard_of": 1}
        while True:
            yield {"running": 2}

    reporter = metrics.Reporter(metrics.Published("m", "p", DESCRIPTIONS), values().__next__, LOG)
    deadline = time.monotonic() + 30
    while made["p_running"].calls != [1, 2] and time.monotonic() < deadline:
        time.sleep(0.001)
    reporter.close()
    assert made["p_running"].calls == [1, 2, 0]
    assert [record.message for record in caplog.records] == ["a periodic job failed; it will be tried again"]
