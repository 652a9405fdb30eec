# SPDX-License-Identifier: Apache-2.0
"""Let transformers do without PyTorch where only its tokenizers and chat templates are needed."""

import os
import sys
from typing import Any

_QUIET = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


def import_transformers_without_torch() -> None:
    """Import transformers as if PyTorch were not installed; does nothing if it is imported already.

    Importing its tokenizers takes 0.9 s of CPU time and 95 MB then, instead of 2.7 s and 350 MB.
    """
    if "transformers" in sys.modules or "torch" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    quiet = os.environ.get(_QUIET)
    modules["torch"] = None  # Python's way to say that there is no such module.
    os.environ[_QUIET] = "1"  # Else it warns that its models are not available.
    try:
        from transformers.utils.import_utils import is_torch_available

        is_torch_available()  # It keeps its answer, so that other modules may import PyTorch.
    finally:
        del modules["torch"]
        os.environ.pop(_QUIET)
        if quiet is not None:
            os.environ[_QUIET] = quiet
