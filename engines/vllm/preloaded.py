# SPDX-License-Identifier: Apache-2.0
"""What the server of forkserver.py imports before it is forked."""

import logging
import os

from engines.vllm.forkserver import serve_workers
from python_backend.imports import quick_imports

try:
    with quick_imports():
        import vllm.v1.engine.core
        import vllm.v1.executor.multiproc_executor
        import vllm.v1.worker.cpu_worker  # noqa: F401
    serve_workers(os.environ)
except Exception:
    # The engine core meets it again, and reports it.
    logging.getLogger(__name__).warning("vLLM cannot be imported", exc_info=True)
