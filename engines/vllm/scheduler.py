# SPDX-License-Identifier: Apache-2.0
"""vLLM's schedulers for models whose image tokens see each other: a picture is never cut by a prefill chunk.

vLLM's option disable_chunked_mm_input ends a chunk before a picture that it would cut, but the next chunk, which starts
with the picture, may hold as little of it as the step's token budget leaves: wrong answers under load (vLLM 0.30).
"""

from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from engines.vllm import gemma3

# The engine core loads the model's class too, and imports this module first.
gemma3.install()

_Base = Scheduler if TYPE_CHECKING else object


class _WholeImages(_Base):
    def _try_schedule_encoder_inputs(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> Any:
        whole = whole_images(request, num_computed_tokens, num_new_tokens)
        return super()._try_schedule_encoder_inputs(request, num_computed_tokens, whole, *args, **kwargs)


class WholeImageScheduler(_WholeImages, Scheduler):
    """For engines that schedule each step after the last."""


class AsyncWholeImageScheduler(_WholeImages, AsyncScheduler):
    """For engines that schedule one step ahead."""


def whole_images(request: Request, computed: int, new: int) -> int:
    """How many of the `new` tokens after the first `computed` fit without cutting a picture; 0 to wait for a step."""
    end = computed + new
    for feature in request.mm_features or ():
        start = feature.mm_position.offset
        if start < end < start + feature.mm_position.length:
            return max(0, start - computed)
    return new
