# SPDX-License-Identifier: Apache-2.0
"""The versions of what is installed here, for `triton-chat --version` and the doctor."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.versions import Versions
from scripts.launcher.environment import find_triton, triton_version
from scripts.launcher.errors import LaunchError


def main(arguments: Sequence[str]) -> int:
    """Print the versions, a line each; returns 0."""
    engine = os.environ.get("TRITON_CHAT_ENGINE") or "vllm"
    for part in (*installed_versions(engine, None, os.environ).parts(), f"Python {platform.python_version()}"):
        print(part)
    return 0


def installed_versions(engine: str, triton: Path | None, environment: Mapping[str, str]) -> Versions:
    """Look up the versions without starting anything. triton: the value of --triton."""
    try:
        found = triton_version(find_triton(triton))
    except LaunchError:
        found = None
    return replace(Versions.find(engine, environment), triton=found)
