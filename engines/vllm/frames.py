# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video vLLM takes at a rate: for some models it has a loader that counts as their processor does."""

from collections.abc import Callable
from contextlib import suppress
from inspect import signature

import numpy as np
from vllm.config import ModelConfig

# The number of a video's frames, its frames per second, those that are asked for, and the most frames -> the rising
# indices of the frames to take; None if the loader does not take such a video.
AtRate = Callable[[int, float, float, int], list[int] | None]

# Seconds; vLLM's default. Some loaders take fewer frames per second of a longer video.
_LONG = 300


def loader_of(config: ModelConfig) -> AtRate | None:
    """The rule of vLLM's loader for a model; None if that is the rule for all others."""
    try:
        from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, get_video_loader_backend_for_processor
        from vllm.multimodal.video_decoders import VideoSourceMetadata, VideoTargetMetadata
        from vllm.transformers_utils.processor import get_video_processor_cls_name
    except ImportError:  # Earlier versions of vLLM have no rules by processor.
        return None
    name = get_video_loader_backend_for_processor(get_video_processor_cls_name(config))
    loader = VIDEO_LOADER_REGISTRY.load(name) if name else None
    # Others go by what requests cannot say.
    if loader is None or "fps" not in signature(loader.load_bytes).parameters:
        return None

    def at_rate(frames: int, fps: float, asked: float, most: int) -> list[int] | None:
        source, target = VideoSourceMetadata(frames, fps, frames / fps), VideoTargetMetadata(-1, asked, _LONG)
        indices: list[int] = []
        with suppress(Exception):  # Some divide by zero for a video of one frame.
            indices = loader.compute_frames_index_to_sample(source, target, max_frames=most)
        if len(indices) > most:
            indices = [indices[at] for at in np.linspace(0, len(indices) - 1, most, dtype=int)]
        return indices or None

    return at_rate
