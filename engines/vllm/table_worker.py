# SPDX-License-Identifier: Apache-2.0
"""Worker extension that registers a model that takes rows of a table in vLLM's workers, on every platform.

vLLM's workers import the extension by its name before they load the model. The name is the model's architecture.
"""

from engines.vllm import quick_end as quick_end  # takes effect by its import
from engines.vllm.table_model import install


def __getattr__(architecture: str) -> type:
    install(architecture)
    # Adds nothing to a worker.
    return type(architecture, (), {})
