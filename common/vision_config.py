# SPDX-License-Identifier: Apache-2.0
"""The vision part of a split checkpoint: its folder `vision/`, beside a language model that knows nothing of it."""

from pathlib import Path
from typing import Any

from common.checkpoint import read_json


def vision_config(folder: Path) -> dict[str, Any]:
    """The vision part's own configuration; empty where there is none. Raises ValueError for invalid JSON."""
    return read_json(folder / "vision" / "config.json")
