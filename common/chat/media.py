# SPDX-License-Identifier: Apache-2.0
"""Reads the fields by which a request sets how its images and videos are prepared: vLLM's, and those of the parts.

Only options that are known are taken, so that no request reaches what a processor opens, loads or keeps.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from common.chat.parts import Kind, MediaRequest
from common.checks import PositionError, expect, shorten
from common.sampling import INT32_MAX

# The most images per second of a video that a request may ask for.
MAX_FPS = 1000.0

Check = Callable[[Any, str], Any]


def _count(value: Any, where: str) -> int:
    number = expect(value, int, where)
    if not 1 <= number <= INT32_MAX:
        raise PositionError(where, f"must be from 1 to {INT32_MAX}")
    return number


def _count_or_all(value: Any, where: str) -> int:
    return -1 if type(value) is int and value == -1 else _count(value, where)


def _number(value: Any, where: str) -> float:
    number = value if type(value) is int else expect(value, float, where)
    if not (math.isfinite(number) and 0 < number <= INT32_MAX):
        raise PositionError(where, f"must be above 0 and at most {INT32_MAX}")
    return number


def _fps(value: Any, where: str) -> float:
    if type(value) in (int, float) and value == -1:
        return -1
    number = _number(value, where)
    if number > MAX_FPS:
        raise PositionError(where, f"must be at most {MAX_FPS:g}")
    return number


def _flag(value: Any, where: str) -> bool:
    return expect(value, bool, where)


def _size(value: Any, where: str) -> dict[str, int]:
    return _read(value, dict.fromkeys(("height", "width", "shortest_edge", "longest_edge"), _count), where)


# The options of a part: in Qwen's clients beside the URL or beside `image_url` and `video_url`.
PART_OPTIONS: Mapping[Kind, Mapping[str, Check]] = {
    "image": {"min_pixels": _count, "max_pixels": _count},
    "video": {"min_pixels": _count, "max_pixels": _count, "num_frames": _count_or_all, "fps": _fps},
}

# The options of processors that set into how many pixels, pieces or tokens an image becomes.
_SIZES: Mapping[str, Check] = {
    "min_pixels": _count,
    "max_pixels": _count,
    "size": _size,
    # InternVL and its relatives
    "min_dynamic_patch": _count,
    "max_dynamic_patch": _count,
    "dynamic_image_size": _flag,
    "use_thumbnail": _flag,
    # InternVL and Cohere in transformers' form, Llama 4
    "crop_to_patches": _flag,
    "min_patches": _count,
    "max_patches": _count,
    # Gemma 3 and 4
    "do_pan_and_scan": _flag,
    "pan_and_scan_max_num_crops": _count,
    "pan_and_scan_min_crop_size": _count,
    "pan_and_scan_min_ratio_to_activate": _number,
    "max_soft_tokens": _count,
    # Idefics 3, SmolVLM
    "do_image_splitting": _flag,
    "max_image_size": _size,
    # MiniCPM-V
    "max_slice_nums": _count,
    "use_image_id": _flag,
    # Phi
    "num_crops": _count,
    "dynamic_hd": _count,
    # LFM2-VL, Perception LM
    "min_tiles": _count,
    "max_tiles": _count,
    "max_num_tiles": _count,
    "min_image_tokens": _count,
    "max_image_tokens": _count,
}
# vLLM's clients of Qwen3-VL give these to the processor. Here frames are sampled once, before the processor.
_SAMPLING: Mapping[str, Check] = {"num_frames": _count_or_all, "fps": _fps, "do_sample_frames": _flag}
SCOPES = ("images_kwargs", "videos_kwargs")


def read_media_request(body: Mapping[str, Any]) -> MediaRequest:
    """The options in the fields `mm_processor_kwargs` and `media_io_kwargs` of a chat request.

    Raises PositionError for an unknown option and for a value that no server takes; the server's limits come later.
    """
    processor = _processor(body.get("mm_processor_kwargs"), "mm_processor_kwargs")
    sampling: dict[str, Any] = {name: processor.pop(name) for name in ("num_frames", "fps") if name in processor}
    return MediaRequest(processor, _media_io(body.get("media_io_kwargs"), "media_io_kwargs") or sampling)


def read_part_options(part: Mapping[str, Any], field: str, kind: Kind, where: str) -> dict[str, Any]:
    """The options of an image or video part, in the object `field` with its URL, or else beside it."""
    given = part.get(field)
    inner = given if isinstance(given, dict) else {}
    options: dict[str, Any] = {}
    for name, check in PART_OPTIONS[kind].items():
        if inner.get(name) is not None:
            options[name] = check(inner[name], f"{where}.{field}.{name}")
        elif part.get(name) is not None:
            options[name] = check(part[name], f"{where}.{name}")
    _ordered(options, where)
    return options


def _processor(value: Any, where: str) -> dict[str, Any]:
    """The options of the processor; sampling options of whichever scope are outside the scopes."""
    if value is None:
        return {}
    scoped: dict[str, Check] = {
        "images_kwargs": lambda scope, at: _read(scope, _SIZES, at),
        "videos_kwargs": lambda scope, at: _read(scope, {**_SIZES, **_SAMPLING}, at),
    }
    options = _read(value, {**_SIZES, **_SAMPLING, **scoped}, where)
    videos = options.get("videos_kwargs", {})
    for name in _SAMPLING:
        if name in videos:
            options[name] = videos.pop(name)
    options.pop("do_sample_frames", None)
    return {name: option for name, option in options.items() if option != {}}


def _media_io(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if "audio" in expect(value, dict, where):
        raise PositionError(f"{where}.audio", "is not supported: this server takes no audio")
    checks: dict[str, Check] = {
        "image": lambda images, at: _read(images, {}, at),
        "video": lambda videos, at: _read(videos, {"num_frames": _count_or_all, "fps": _fps}, at),
    }
    return dict(_read(value, checks, where).get("video", {}))


def _read(value: Any, checks: Mapping[str, Check], where: str) -> dict[str, Any]:
    """The options of an object that are not null, each checked."""
    options: dict[str, Any] = {}
    for name, option in expect(value, dict, where).items():
        if name not in checks:
            known = f"the known ones are {', '.join(checks)}" if checks else "there are none"
            raise PositionError(where, f"has the unknown option '{shorten(name)}'; {known}")
        if option is not None:
            options[name] = checks[name](option, f"{where}.{name}")
    _ordered(options, where)
    return options


def _ordered(options: Mapping[str, Any], where: str) -> None:
    if "min_pixels" in options and "max_pixels" in options and options["min_pixels"] > options["max_pixels"]:
        raise PositionError(f"{where}.min_pixels", "is above max_pixels")
