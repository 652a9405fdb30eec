# SPDX-License-Identifier: Apache-2.0
"""What vLLM's workers load beside themselves, on every platform, to know Gemma 3 as the engine does."""

from engines.vllm import gemma3

gemma3.install()


class Extension:
    """Adds nothing to a worker: importing this module there is what counts."""
