# SPDX-License-Identifier: Apache-2.0
"""The engines of the model `tensorrt_llm`, by the config parameter `engine`."""

import importlib

from engines.engine import Engine
from engines.options import EngineOptions

# name -> (module, class); imported only when chosen, as each engine needs its own packages.
ENGINES = {"llmapi": ("engines.llmapi.engine", "LlmApiEngine"), "vllm": ("engines.vllm.engine", "VllmEngine")}


def build_engine(options: EngineOptions) -> Engine:
    """Build the engine that the options name: one of the table, or `module:Class` of a module beside `model.py`.

    Raises ValueError for an unknown name.
    """
    module, _, name = options.engine.partition(":")
    if not name:
        if options.engine not in ENGINES:
            raise ValueError(f"unknown engine '{options.engine}'; known: {', '.join(sorted(ENGINES))}, or module:Class")
        module, name = ENGINES[options.engine]
    engine: Engine = getattr(importlib.import_module(module), name)(options)
    return engine
