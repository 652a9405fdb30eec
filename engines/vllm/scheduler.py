# SPDX-License-Identifier: Apache-2.0
"""Schedulers for vLLM that never split an image between prefill chunks, for bidirectional attention within images.

vLLM's option disable_chunked_mm_input ends a chunk before an image that it would split, but the next chunk, which
starts with the image, may hold only as much of it as the step's token budget leaves: wrong answers under load (vLLM
0.30).
"""

from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from engines.vllm import gemma3

# The engine core loads the model's class as well, after this module.
gemma3.install()

if TYPE_CHECKING:
    _Base = Scheduler
else:
    _Base = object


class _WholeImages(_Base):
    def _try_schedule_encoder_inputs(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> Any:
        whole = whole_images(request, num_computed_tokens, num_new_tokens)
        return super()._try_schedule_encoder_inputs(request, num_computed_tokens, whole, *args, **kwargs)


class WholeImageScheduler(_WholeImages, Scheduler):
    """For engines that schedule a step when the last one has ended."""


class AsyncWholeImageScheduler(_WholeImages, AsyncScheduler):
    """For engines that schedule one step ahead."""


def whole_images(request: Request, computed: int, new: int) -> int:
    """How many of the `new` tokens after the first `computed` fit without splitting an image; 0 to wait for a step."""
    end = computed + new
    for feature in request.mm_features or ():
        start = feature.mm_position.offset
        if start < end < start + feature.mm_position.length:
            return max(0, start - computed)
    return new
