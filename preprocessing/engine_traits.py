# SPDX-License-Identifier: Apache-2.0
"""What the engine behind `tensorrt_llm` supports, so that other requests are refused instead of answered wrongly."""

from dataclasses import dataclass

from common.errors import RequestError
from preprocessing.guides.build import GUIDE_TYPES

# NVIDIA's C++ backend of TensorRT-LLM: the value of the config parameter `engine`, and the name of its named config.
TRTLLM = "trtllm"
# TensorRT-LLM's LLM API, which comes with an xgrammar of 0.1.
LLMAPI = "llmapi"
# The backend has no structural tags and ignores them.
_TRTLLM_GUIDES = frozenset(GUIDE_TYPES) - {"structural_tag"}


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What an engine supports.

    guides: the guide types that it enforces. takes_images: it takes pixels, for families whose vision part it runs.
    reports_finish: its last response is marked and has a finish reason.
    call_styles: its xgrammar knows notations of arguments that are not JSON.
    """

    guides: frozenset[str] = frozenset(GUIDE_TYPES)
    takes_images: bool = True
    reports_finish: bool = True
    call_styles: bool = True

    def check(self, guide_type: str | None, *, engine_images: bool) -> None:
        """Raise RequestError for a guide or for images that the engine would ignore."""
        if guide_type is not None and guide_type not in self.guides:
            known = ", ".join(sorted(self.guides)) or "none"
            raise RequestError(
                f"the engine behind this server cannot enforce a guide of type '{guide_type}' (it can: {known}), "
                "which this response_format, tool_choice or structured output needs"
            )
        if engine_images and not self.takes_images:
            raise RequestError("the engine behind this server takes no images of this model", param="messages")


def engine_traits(engine: str | None, *, guided_decoding: bool) -> EngineTraits:
    """The traits of an engine by its name. guided_decoding: whether a `trtllm` engine is configured for guides."""
    if engine != TRTLLM:
        return EngineTraits(call_styles=engine != LLMAPI)
    guides = _TRTLLM_GUIDES if guided_decoding else frozenset()
    return EngineTraits(guides, takes_images=False, reports_finish=False, call_styles=False)
