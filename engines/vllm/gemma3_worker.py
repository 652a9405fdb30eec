# SPDX-License-Identifier: Apache-2.0
"""Worker extension that registers Gemma 3 in vLLM's workers, on every platform."""

from engines.vllm import gemma3
from engines.vllm import quick_end as quick_end  # takes effect by its import

gemma3.install()


class Extension:
    """Adds nothing to a worker: importing this module registers the model."""
