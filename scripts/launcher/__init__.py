# SPDX-License-Identifier: Apache-2.0
"""Start tritonserver and the frontends as one stack, for `triton-chat serve`, the benchmark and tests."""

from typing import TYPE_CHECKING

from scripts.launcher.errors import LaunchError
from scripts.launcher.ports import FREE_PORTS

if TYPE_CHECKING:
    from scripts.launcher.stack import Stack

__all__ = ["FREE_PORTS", "LaunchError", "Stack"]


def __getattr__(name: str) -> object:
    """Import the stack when it is first used: it takes a second, which the help of a command need not wait for."""
    if name != "Stack":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scripts.launcher.stack import Stack

    return Stack
