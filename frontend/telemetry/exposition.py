# SPDX-License-Identifier: Apache-2.0
"""All metrics in Prometheus' text format.

With PROMETHEUS_MULTIPROC_DIR set, processes that share a port report as one.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from common.versions import Versions
from frontend import __version__
from frontend.telemetry.metric_files import delete_dead_gauges
from frontend.telemetry.metrics import QUEUED
from frontend.telemetry.vllm_names import VllmNames


class BuildInfo:
    """The metric `triton_chat_build_info`, whose labels are the versions. Every process knows them by itself."""

    def __init__(self, versions: Versions) -> None:
        self._labels = {"version": __version__} | {name: value or "" for name, value in asdict(versions).items()}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Make the metric; called by prometheus_client."""
        family = GaugeMetricFamily("triton_chat_build_info", "Versions; the value is always 1", labels=[*self._labels])
        family.add_metric([*self._labels.values()], 1)
        yield family


def exposition(versions: Versions, engines: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return all metrics in Prometheus' text format.

    versions: what runs behind this process. engines: the engines' statistics by served model.
    """
    built = CollectorRegistry()
    built.register(BuildInfo(versions))
    return _counted() + generate_latest(built) + load_exposition(engines)


def load_exposition(engines: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return only the metrics under vLLM's names: all metrics take some milliseconds, and pickers ask very often."""
    registry = CollectorRegistry()
    registry.register(VllmNames(engines, {model: _queued(model) for model in engines}))
    return generate_latest(registry)


def _counted() -> bytes:
    folder = _shared_folder()
    if folder is None:
        return generate_latest()
    registry = CollectorRegistry()
    registry.register(_Shared(folder))
    return generate_latest(registry)


class _Shared(Collector):
    """The metrics of all processes that share a folder."""

    def __init__(self, folder: Path, pattern: str = "*.db") -> None:
        self._folder, self._pattern = folder, pattern

    def collect(self) -> Iterable[Metric]:
        # A process makes a file and then gives it its size. One that was killed in between leaves an empty file, which
        # prometheus_client cannot read.
        files = [str(path) for path in self._folder.glob(self._pattern) if _size(path)]
        merged: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call] # prometheus_client has no types here
        return merged


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # Another process has just deleted the gauges of one that was killed.
        return 0


def _queued(model: str) -> float:
    """Count the requests for a model that are queued in any of the processes."""
    folder = _shared_folder()
    families: Iterable[Metric] = QUEUED.collect()
    if folder is not None:
        # Only these files: there are others for histograms and counters, which are large.
        families = _Shared(folder, "gauge_livesum_*.db").collect()
    samples = [sample for family in families if family.name == "triton_chat_queued" for sample in family.samples]
    return sum(sample.value for sample in samples if sample.labels["model"] == model)


def _shared_folder() -> Path | None:
    """Return the folder of several processes' metrics, without the gauges of those that were killed."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return None
    delete_dead_gauges(Path(folder))
    return Path(folder)
