# SPDX-License-Identifier: Apache-2.0
"""Publish the metrics of a Python model on Triton's metrics endpoint."""

import ctypes
import logging
import threading
from collections.abc import Callable, Mapping

from common.periodic import PeriodicJob
from python_backend.api import Metric, MetricFamily, pb_utils

PERIOD_S = 0.25


class Published:
    """Metrics named `<prefix>_<name>`: counters if the name ends in "_total", else gauges.

    model: the Triton model's name.
    descriptions: name -> description, for every possible name.
    Setting a metric costs a message to the Triton process, so only changed values are set. Use it from one thread at a
    time.
    """

    def __init__(self, model: str, prefix: str, descriptions: Mapping[str, str]) -> None:
        self._labels = {"model": model}
        self._prefix = prefix
        self._descriptions = descriptions
        # A family must outlive its metrics.
        self._families: dict[str, MetricFamily] = {}
        self._metrics: dict[str, Metric] = {}
        self._values: dict[str, float] = {}

    def set(self, statistics: Mapping[str, float]) -> None:
        """Publish the values; a metric is created with its first value."""
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
        """End with all gauges at 0, and keep the metrics for ever.

        They must not be deleted. In Triton, processes that publish a metric of the same name with the same labels share
        it: those of a model that is loaded again while its old process ends. Triton 2.51 deletes it with the first of
        them, and the next value of the other corrupts tritonserver's memory. And when Python itself deletes them at its
        end, the stub crashes.
        """
        self.set({name: 0.0 for name in self._metrics if not name.endswith("_total")})
        for kept in (*self._metrics.values(), *self._families.values()):
            # One reference more than there are holders: not even the end of the interpreter deletes it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))

    def _add(self, name: str) -> None:
        kinds = pb_utils.MetricFamily
        self._families[name] = pb_utils.MetricFamily(
            name=f"{self._prefix}_{name}",
            description=self._descriptions[name],
            kind=kinds.COUNTER if name.endswith("_total") else kinds.GAUGE,
        )
        self._metrics[name] = self._families[name].Metric(labels=self._labels)


class Reporter:
    """A thread that publishes the values that `read` returns, for models without a loop of their own.

    log: of failures, which do not end it.
    """

    def __init__(self, published: Published, read: Callable[[], Mapping[str, float]], log: logging.Logger) -> None:
        self._published = published
        self._report = PeriodicJob(lambda: published.set(read()), log)
        self._ended = threading.Event()
        self._published.set(read())
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and delete the metrics: none may be set while the model is unloaded."""
        self._ended.set()
        self._thread.join()
        self._published.close()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._report()
