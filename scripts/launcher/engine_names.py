# SPDX-License-Identifier: Apache-2.0
"""The names of vLLM's options, read from its source: importing it takes ten seconds and 1 GB."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_CLASSES = ("EngineArgs", "AsyncEngineArgs")


@cache
def vllm_options() -> frozenset[str]:
    """The options of the installed vLLM; empty without one."""
    vllm = find_spec("vllm")
    file = Path(vllm.origin or "").parent / "engine" / "arg_utils.py" if vllm else None
    if file is None or not file.is_file():
        return frozenset()
    return frozenset(
        field.target.id
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )
