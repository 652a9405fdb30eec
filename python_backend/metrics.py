# SPDX-License-Identifier: Apache-2.0
"""Metrics of a Python model on Triton's own metrics endpoint. Imported only inside Triton's Python backend."""

import threading
from collections.abc import Callable, Mapping

from python_backend.api import Metric, MetricFamily, pb_utils

PERIOD_S = 0.25


class Published:
    """Statistics by name as `<prefix>_<name>`; a name that ends in "_total" is a counter, any other a gauge.

    descriptions: name -> what it is, for every name there can be.
    Setting one costs a message to the Triton process, so that only what changed is set. Safe to be called from one
    thread at a time.
    """

    def __init__(self, model: str, prefix: str, descriptions: Mapping[str, str]) -> None:
        self._labels = {"model": model}
        self._prefix = prefix
        self._descriptions = descriptions
        # A family must outlive its metrics, so both are kept.
        self._families: dict[str, MetricFamily] = {}
        self._metrics: dict[str, Metric] = {}
        self._values: dict[str, float] = {}

    def set(self, statistics: Mapping[str, float]) -> None:
        """Publish the values; a name seen for the first time gets its metric."""
        for name, value in statistics.items():
            if name not in self._metrics:
                self._add(name)
            if value == self._values.get(name):
                continue
            if name.endswith("_total"):
                self._metrics[name].increment(value - self._values.get(name, 0))
            else:
                self._metrics[name].set(value)
            self._values[name] = value

    def close(self) -> None:
        """Let go of all of them, which the stub can no longer do once Python is ending: it would crash."""
        self._metrics.clear()
        self._families.clear()

    def _add(self, name: str) -> None:
        kinds = pb_utils.MetricFamily
        self._families[name] = pb_utils.MetricFamily(
            name=f"{self._prefix}_{name}",
            description=self._descriptions[name],
            kind=kinds.COUNTER if name.endswith("_total") else kinds.GAUGE,
        )
        self._metrics[name] = self._families[name].Metric(labels=self._labels)


class Reporter:
    """A thread that publishes what `read` gives, for models without a loop of their own."""

    def __init__(self, published: Published, read: Callable[[], Mapping[str, float]]) -> None:
        self._published = published
        self._read = read
        self._ended = threading.Event()
        self._published.set(read())
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and the metrics: none may be set while the model goes away."""
        self._ended.set()
        self._thread.join()
        self._published.close()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._published.set(self._read())
