# SPDX-License-Identifier: Apache-2.0
"""What vLLM's workers load beside themselves, on every platform, to know Gemma 3 as the engine does."""

import vllm_gemma3

vllm_gemma3.install()


class Extension:
    """Adds nothing to a worker: importing this module there is what counts."""
