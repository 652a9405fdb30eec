# SPDX-License-Identifier: Apache-2.0
"""Let a process of vLLM end at once: imported in it, as the module of its worker's extension."""

import atexit
import gc


class Extension:
    """Adds nothing to vLLM's worker."""


# Python would look through all objects of vLLM and torch once more, which takes two seconds.
atexit.register(gc.freeze)
