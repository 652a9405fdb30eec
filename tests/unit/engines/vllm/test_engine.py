# SPDX-License-Identifier: Apache-2.0
"""How vLLM's processes are started."""

import asyncio
import os

import pytest

from engines.vllm import engine as vllm_engine

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


class Started(Exception):
    """Raised when vLLM would start its processes."""


@pytest.fixture(autouse=True)
def fake_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "engine_args", lambda options: None)
    monkeypatch.setattr(vllm_engine, "engine_config", lambda args: (_ for _ in ()).throw(Started))


@pytest.mark.parametrize(("given", "method"), [(None, "spawn"), ("fork", "fork")])
def test_vllms_processes_are_spawned_unless_the_environment_says_otherwise(given, method, monkeypatch):
    # Set and deleted, so that monkeypatch also undoes what `start` writes.
    monkeypatch.setenv(METHOD, given or "")
    if given is None:
        monkeypatch.delenv(METHOD)
    with pytest.raises(Started):
        asyncio.run(vllm_engine.VllmEngine(None).start())
    assert os.environ[METHOD] == method
