# SPDX-License-Identifier: Apache-2.0
"""The real package also exports its parameters here."""

from tensorrt_llm.llm import LLM, CompletionOutput, RequestOutput
from tensorrt_llm.sampling_params import GuidedDecodingParams, SamplingParams

__all__ = ["LLM", "CompletionOutput", "GuidedDecodingParams", "RequestOutput", "SamplingParams"]
