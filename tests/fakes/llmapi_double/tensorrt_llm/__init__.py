# SPDX-License-Identifier: Apache-2.0
"""A double of TensorRT-LLM's LLM API, 1.2.1 to 1.4: its documented names, arguments and types, and scripted answers.

It is the release that `__version__` says, which tests may set.

Like the real one it refuses unknown arguments, values of another type and more than one guide. The environment variable
TENSORRT_LLM_DOUBLE names a JSON file of rules {"contains", "ids" or "text", "error"}; the first whose `contains` is in
the decoded prompt is played, one token per response.
"""

from tensorrt_llm.llm import LLM
from tensorrt_llm.sampling_params import SamplingParams

__version__ = "1.2.1"
__all__ = ["LLM", "SamplingParams"]
