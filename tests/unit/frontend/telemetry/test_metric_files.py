# SPDX-License-Identifier: Apache-2.0
"""Metrics whose file cannot grow: no request fails, and nothing is lost once it can."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from frontend.telemetry import metric_files
from frontend.telemetry.metric_files import MetricFile


def fill(file: MetricFile) -> None:
    """Write values until the next new one needs a longer file."""
    number = 0
    while file._used + 100 < file._capacity:
        file.write_value(f"{number:020}", 1.0, 0.0)
        number += 1


def written(path: Path) -> dict[str, float]:
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}


@pytest.mark.parametrize("refusing", ["posix_fallocate", "truncate"])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    path = tmp_path / "counter_1.db"
    file = MetricFile(str(path))
    fill(file)
    key = "new " * 50

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Refusing:
        def __init__(self, inner: object) -> None:
            self.inner = inner
            self.fileno, self.truncate = inner.fileno, refuse

    with monkeypatch.context() as full:
        if refusing == "truncate":
            full.setattr(file, "_f", Refusing(file._f))
        else:
            full.setattr(metric_files.os, refusing, refuse)
        assert file.read_value(key) == (0.0, 0.0)
        for count in (1.0, 2.0):
            file.write_value(key, count, 0.0)
            file.write_value(f"{0:020}", count, 0.0)
    assert key not in written(path)
    assert written(path)[f"{0:020}"] == 2.0, "what has its place is written"
    file.write_value(key, 3.0, 0.0)
    assert written(path)[key] == 3.0
    file.write_value("another " * 50, 1.0, 0.0)
    file.close()


def test_files_have_their_room_on_the_disk(tmp_path: Path) -> None:
    """A write into a file that has only its length would end the process if the disk is full."""
    path = tmp_path / "counter_1.db"
    file = MetricFile(str(path))
    for _ in range(2):
        assert os.stat(path).st_blocks * 512 >= os.stat(path).st_size == file._capacity
        fill(file)
        file.write_value("new " * 50, 1.0, 0.0)
    file.close()


def test_new_sets_of_labels_on_a_full_disk(tmp_path: Path) -> None:
    """What a frontend does with its metrics, in a process whose files cannot grow for some time."""
    program = """
import resource
from frontend.telemetry import exposition, metrics

unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (1, unlimited))
for number in range(300):
    metrics.endpoint_metrics("chat", f"m{number}").prompt_tokens.inc(number)
    metrics.IN_FLIGHT.labels(f"m{number}" * 9).inc()
resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
for number in range(300):
    metrics.endpoint_metrics("chat", f"m{number}").prompt_tokens.inc(1)
metrics.endpoint_metrics("chat", "another").prompt_tokens.inc(1)
print(exposition._counted().decode())
"""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    for model, value in (("m0", 1.0), ("m299", 300.0), ("another", 1.0)):
        assert f'triton_chat_prompt_tokens_total{{endpoint="chat",model="{model}"}} {value}' in ended.stdout
