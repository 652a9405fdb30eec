# SPDX-License-Identifier: Apache-2.0
"""Options that set variables of the model repository's configs (`parameters` in config.pbtxt), for every engine."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.fast_tokenizer import BACKENDS
from common.vision_path import CHOICES
from frontend.settings import ENV_PREFIX, one_of, switch, text, whole

# Those of vision/runtimes/registry.py, which imports torch.
RUNTIMES = ("torch", "onnxruntime", "tensorrt")
_MOST = 2**31 - 1
_POSITIVE = whole(1, _MOST)
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def device(value: str) -> str:
    """A device of torch."""
    if not _DEVICE.fullmatch(value):
        raise ValueError("auto, cpu, cuda or cuda:N")
    return value


@dataclass(frozen=True, slots=True)
class ModelSetting:
    """An option of the models.

    parse: raises ValueError with what was expected. default: in words.
    """

    parse: Callable[[str], Any]
    about: str
    default: str


MODEL_SETTINGS: Mapping[str, ModelSetting] = {
    "chat_template": ModelSetting(text, "file with a chat template in Jinja, or its text", "the checkpoint's"),
    "describe_tools": ModelSetting(
        switch, "describe `tools` in the prompt of a model whose chat template knows none", "on"
    ),
    "engine_max_requests": ModelSetting(_POSITIVE, "requests in the engine at once, from all clients", "2048"),
    "image_max_pixels": ModelSetting(_POSITIVE, "largest image in pixels, after decoding", "64 Mi"),
    "max_inputs": ModelSetting(_POSITIVE, "inputs, or pairs of texts, of one request to an embedding model", "2048"),
    "max_resized_pixels": ModelSetting(
        _POSITIVE, "pixels to which a request may have a picture or a frame resized", "16 Mi"
    ),
    "max_tiles": ModelSetting(_POSITIVE, "tiles per request", "128"),
    "max_tiles_per_image": ModelSetting(_POSITIVE, "tiles per image, not counting the thumbnail", "the checkpoint's"),
    "max_video_frames": ModelSetting(
        _POSITIVE, "frames of a video that a request may ask for", "128, or --video-frames"
    ),
    "pan_and_scan": ModelSetting(switch, "Gemma 3: add crops of long images", "off"),
    "reasoning_parser": ModelSetting(text, "how answers have their reasoning, by vLLM's name", "auto"),
    "tokenizer_backend": ModelSetting(
        one_of(BACKENDS), "tokenizer of long prompts: fastokens if its ids are the same, or one of the two", "auto"
    ),
    "tool_call_parser": ModelSetting(text, "the form of tool calls, by vLLM's name", "auto"),
    "video_frames": ModelSetting(_POSITIVE, "frames sampled from a video, if the request does not say how many", "8"),
    "vision": ModelSetting(one_of(CHOICES), "the path of pictures: auto, engine, vit, or none", "auto"),
    "vit_compile": ModelSetting(switch, "compile the vision tower's layers", "on GPUs"),
    "vit_device": ModelSetting(device, "device of the vision tower: auto, cpu, cuda, cuda:1, ...", "auto"),
    "vit_dtype": ModelSetting(
        one_of(("auto", "float32", "bfloat16", "float16")), "its weights: float32, bfloat16 or float16", "as stored"
    ),
    "vit_engine": ModelSetting(text, "ONNX file or TensorRT engine of the vision tower", "a file in vision/"),
    "vit_runtime": ModelSetting(one_of(RUNTIMES), "what runs it: torch, onnxruntime or tensorrt", "torch"),
    "vit_threads": ModelSetting(_POSITIVE, "its CPU threads", "all; one if a GPU computes"),
    "vit_tile_budget": ModelSetting(_POSITIVE, "tiles per run of the vision tower", "32"),
}


def check_model_settings(environment: Mapping[str, str]) -> None:
    """Check the variables of these options; raises ValueError naming the variable."""
    for name, setting in MODEL_SETTINGS.items():
        variable = ENV_PREFIX + name.upper()
        if value := environment.get(variable):
            check_setting(variable, value, setting.parse)


def check_setting(key: str, value: str, parse: Callable[[str], Any]) -> None:
    """Check the value of a flag or variable; raises ValueError naming it."""
    try:
        parse(value)
    except ValueError as error:
        raise ValueError(f"{key}={value!r}: expected {error}") from None
