# SPDX-License-Identifier: Apache-2.0
"""Engines by name."""

import sys
from types import ModuleType

import pytest

from engines.options import EngineOptions
from engines.registry import build_engine


def test_an_unknown_engine_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown engine 'ollama'; known: llmapi, vllm"):
        build_engine(EngineOptions("ollama", "/m", {}))


def test_an_engine_of_ones_own_is_a_module_and_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_engine")
    module.__dict__["OwnEngine"] = lambda options: ("own", options)
    monkeypatch.setitem(sys.modules, "own_engine", module)
    options = EngineOptions("own_engine:OwnEngine", "/m", {})
    assert build_engine(options) == ("own", options)
