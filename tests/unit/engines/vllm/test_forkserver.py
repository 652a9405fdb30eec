# SPDX-License-Identifier: Apache-2.0
"""vLLM's processes come from a server that has imported it; here they do something simpler."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import vllm.v1.engine.utils as vllm_utils

from engines.vllm import forkserver

ROOT = Path(__file__).parents[4]
# In the place of vLLM: the model's process starts a core, which starts a worker, and each writes down what it is.
PROCESSES = """
import json, os, sys
from pathlib import Path

from engines.vllm import forkserver

def run(target, *arguments):
    process = forkserver.Context().Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)

def note(folder, name):
    seen = {"pid": os.getpid(), "parent": os.getppid(), "cores": sorted(os.sched_getaffinity(0))}
    Path(folder, name).write_text(json.dumps(seen | {"environment": dict(os.environ)}))

def core(folder, changed):
    note(folder, "core")
    os.environ.update(forkserver._worker_environment(os.environ) | changed)
    run(note, folder, "worker")

def model(folder, changed):
    forkserver._PRELOADED = "served"
    forkserver.start()
    note(folder, "model")
    sockets = Path(forkserver._socket_folder.name)
    os.environ.update(ADDED="by vLLM", CHANGED="new", VLLM_LATE="1")
    del os.environ["REMOVED"]
    with forkserver.engine_core_from_server():
        run(core, folder, changed)
    assert not sockets.exists()
"""
SERVED = """
import os
from engines.vllm import forkserver

os.environ.update(ADDED="by vLLM", CHANGED="new")
del os.environ["REMOVED"]
forkserver._Process.at_start = dict(os.environ)
"""


def run(folder: Path, changed: dict[str, str]) -> dict[str, dict]:
    """The notes of the three processes; changed: what the core sets for the worker."""
    (folder / "processes.py").write_text(PROCESSES)
    (folder / "served.py").write_text(SERVED)
    (folder / "vllm" / "v1" / "engine").mkdir(parents=True)
    for module in ("__init__", "v1/__init__", "v1/engine/__init__", "v1/engine/utils"):
        (folder / "vllm" / f"{module}.py").write_text("get_mp_context = None")
    own = {"VLLM_TARGET_DEVICE": "cpu", "CHANGED": "old", "REMOVED": "1", "KEPT": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}
    environment = os.environ | own | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    program = f"from processes import model; model({str(folder)!r}, {changed!r})"
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, timeout=120)
    return {name: json.loads((folder / name).read_text()) for name in ("model", "core", "worker")}


def test_processes_have_the_environment_that_vllm_gives_them(tmp_path: Path) -> None:
    notes = run(tmp_path, {"VLLM_DIST_IDENT": "1"})
    for name in ("core", "worker"):
        seen = notes[name]["environment"]
        assert (seen["ADDED"], seen["CHANGED"], seen["KEPT"], seen["VLLM_LATE"]) == ("by vLLM", "new", "1", "1")
        assert "REMOVED" not in seen
    # The server is another process, of which both are forked; what binds OpenMP is not the core's.
    assert notes["worker"]["parent"] == notes["core"]["parent"] != notes["model"]["pid"]
    assert "GOMP_CPU_AFFINITY" not in notes["core"]["environment"]
    assert notes["core"]["cores"] == notes["model"]["cores"]


def test_a_worker_whose_libraries_need_another_environment_is_started_anew(tmp_path: Path) -> None:
    notes = run(tmp_path, {"OMP_NUM_THREADS": "7"})
    assert notes["worker"]["parent"] == notes["core"]["pid"]
    assert notes["worker"]["environment"]["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("cores", "threads", "affinity"), [("0,1", "2", "0 1"), ("3", "1", "3"), ("auto", None, None), ("0|1", None, None)]
)
def test_the_server_binds_its_threads_as_vllm_those_of_one_worker(
    cores: str, threads: str | None, affinity: str | None
) -> None:
    added = forkserver._worker_environment({"VLLM_CPU_OMP_THREADS_BIND": cores})
    assert (added.get("OMP_NUM_THREADS"), added.get("GOMP_CPU_AFFINITY")) == (threads, affinity)


def test_without_the_server_vllm_starts_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_TARGET_DEVICE", raising=False)
    forkserver.start()
    own = vllm_utils.get_mp_context
    with forkserver.engine_core_from_server():
        assert vllm_utils.get_mp_context is own


def test_a_process_that_has_imported_vllm_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    forkserver.start()
    assert forkserver._socket_folder is None


def test_with_the_server_vllm_takes_the_engine_core_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(forkserver, "_socket_folder", tempfile.TemporaryDirectory(dir=tmp_path))
    own = vllm_utils.get_mp_context
    with forkserver.engine_core_from_server():
        assert vllm_utils.get_mp_context().get_start_method() == "forkserver"
    assert vllm_utils.get_mp_context is own


def test_the_server_can_import_what_it_is_to_import() -> None:
    """A failed import would leave the server without vLLM, which a log tells nobody."""
    program = (
        f"import {forkserver._PRELOADED}, vllm.v1.executor.multiproc_executor as executor;"
        "assert executor.get_mp_context().get_start_method() == 'forkserver'"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
