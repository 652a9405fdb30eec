# SPDX-License-Identifier: Apache-2.0
"""Start tritonserver and the frontends as one stack, for `triton-chat serve`, the benchmark and tests."""

from scripts.launcher.errors import LaunchError
from scripts.launcher.ports import FREE_PORTS
from scripts.launcher.stack import Stack

__all__ = ["FREE_PORTS", "LaunchError", "Stack"]
