# SPDX-License-Identifier: Apache-2.0
"""A double of TensorRT-LLM 1.2.1's LLM API: its documented names, arguments and types, and scripted answers.

It refuses what the real one refuses: unknown arguments, values of another type, more than one guide. The environment
variable TENSORRT_LLM_DOUBLE names a JSON file of rules {"contains", "ids" or "text", "error"}; the first whose
`contains` stands in the decoded prompt is played, a token for each response.
"""

from tensorrt_llm.llm import LLM
from tensorrt_llm.sampling_params import SamplingParams

__version__ = "1.2.1"
__all__ = ["LLM", "SamplingParams"]
