# SPDX-License-Identifier: Apache-2.0
"""Split a vision-language checkpoint into a plain causal-LM checkpoint and, in `vision/`, the vision part."""

from scripts.split.errors import SplitError
from scripts.split.layouts import LAYOUTS
from scripts.split.splitter import split_checkpoint

__all__ = ["LAYOUTS", "SplitError", "split_checkpoint"]
