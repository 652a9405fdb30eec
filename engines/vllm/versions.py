# SPDX-License-Identifier: Apache-2.0
"""Differences between the versions of vLLM that the adapter works with: 0.25 to 0.33."""

import torch
import vllm
import vllm.exceptions
from packaging.version import Version

_RELEASE = Version(vllm.__version__).release

# The base of errors that are the request's fault; until 0.25 they are all ValueErrors.
CLIENT_ERROR: type[Exception] = getattr(vllm.exceptions, "VLLMClientError", ValueError)

# The type in which vLLM's CPU attention takes whether each sequence is causal.
CAUSAL_DTYPE = torch.bool if _RELEASE < (0, 32) else torch.int32
