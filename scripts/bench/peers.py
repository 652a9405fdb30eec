# SPDX-License-Identifier: Apache-2.0
"""The peers: `vllm serve` with one API server, with several, or with its front end in Rust."""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from scripts.bench.target_names import SEVERAL, VLLM_RUST
from scripts.launcher.environment import python_command

_USE_RUST, _RUST_PATH = "VLLM_USE_RUST_FRONTEND", "VLLM_RUST_FRONTEND_PATH"
# Values of _RUST_PATH with which vLLM takes the program of its own package.
_OWN_PROGRAM = ("", "auto", "1", "true")


def peer_flags(name: str) -> list[str]:
    """Flags of `vllm serve` for a peer."""
    several = SEVERAL.fullmatch(name)
    return ["--api-server-count", several[1]] if several else []


def peer_environment(name: str) -> dict[str, str]:
    """Variables of `vllm serve` for a peer."""
    return {_USE_RUST: "1"} if name == VLLM_RUST else {}


def vllm_serve(model: str) -> list[str]:
    """The start of `vllm serve`'s command line. The CPU build's package has another name, with which `vllm` fails."""
    try:
        version("vllm")
    except PackageNotFoundError:
        return [*python_command("scripts.bench.vllm_serve"), "serve", model]
    return [*python_command("vllm.entrypoints.cli.main"), "serve", model]


def check_rust(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ValueError if vLLM's front end in Rust is missing."""
    named = environment.get(_RUST_PATH, "")
    program = _own_program() if named.lower() in _OWN_PROGRAM else Path(named)
    if program is None:
        raise ValueError(f"{VLLM_RUST} needs vLLM, which is not installed")
    if not os.access(program, os.X_OK) or not program.is_file():
        raise ValueError(
            f"{VLLM_RUST}: this build of vLLM has no front end in Rust: {program} is missing. vLLM's wheels for "
            f"GPUs have it since 0.25; the variable {_RUST_PATH} names another build's `vllm-rs` of the same version"
        )


def _own_program() -> Path | None:
    found = find_spec("vllm")
    return Path(found.origin).parent / "vllm-rs" if found is not None and found.origin is not None else None
