# SPDX-License-Identifier: Apache-2.0
"""Differences between the versions of vLLM that the adapter works with: 0.25 to 0.33."""

import dataclasses

import torch
import vllm
import vllm.exceptions
from packaging.version import Version
from vllm.multimodal.processing import ProcessorInputs

_RELEASE = Version(vllm.__version__).release

# The base of errors that are the request's fault; until 0.25 they are all ValueErrors.
CLIENT_ERROR: type[Exception] = getattr(vllm.exceptions, "VLLMClientError", ValueError)

# The type in which vLLM's CPU attention takes whether each sequence is causal.
CAUSAL_DTYPE = torch.bool if _RELEASE < (0, 32) else torch.int32

# Whether a processor of pictures takes its cache with each call; in earlier versions it is an attribute, `cache`.
CACHE_IN_INPUTS = any(field.name == "cache" for field in dataclasses.fields(ProcessorInputs))
