# SPDX-License-Identifier: Apache-2.0
"""Reads the fields by which a request sets how its images and videos are prepared: vLLM's, and those of the parts.

Only options that are known are taken, so that no request reaches what a processor opens, loads or keeps.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from common.chat.parts import SCOPES, Kind, MediaRequest
from common.checks import PositionError, expect, shorten
from common.sampling import INT32_MAX

# The most images per second of a video that a request may ask for.
MAX_FPS = 1000.0

Check = Callable[[Any, str], Any]


def _count(value: Any, where: str) -> int:
    if type(value) is float:
        raise PositionError(where, "must be a whole number")
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
    edges = dict.fromkeys(("height", "width", "shortest_edge", "longest_edge"), Option(_count))
    return _read(value, edges, where)


# What the value of an option counts, for the server's limits.
Unit = Literal["pixels", "size", "side", "pieces", "tokens", "frames"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option that requests may set. check: returns a value that fits, else raises PositionError."""

    check: Check
    unit: Unit | None = None


_PIXELS = {name: Option(_count, "pixels") for name in ("min_pixels", "max_pixels")}
SAMPLING: Mapping[str, Option] = {"num_frames": Option(_count_or_all, "frames"), "fps": Option(_fps)}
_PATCHES = {name: Option(_count, "pieces") for name in ("min_dynamic_patch", "max_dynamic_patch")}

# The options of a part. Qwen's API has them beside the object with the URL, SGLang in it.
PART_OPTIONS: Mapping[Kind, Mapping[str, Option]] = {
    "image": {**_PIXELS, **_PATCHES},
    "video": {**_PIXELS, **_PATCHES, **SAMPLING},
}

# The options of processors that set into how many pixels, pieces or tokens an image becomes.
PROCESSOR_OPTIONS: Mapping[str, Option] = {
    **_PIXELS,
    "size": Option(_size, "size"),
    # InternVL and its relatives
    **_PATCHES,
    "dynamic_image_size": Option(_flag),
    "use_thumbnail": Option(_flag),
    # InternVL and Cohere in transformers' form, Llama 4
    "crop_to_patches": Option(_flag),
    "min_patches": Option(_count, "pieces"),
    "max_patches": Option(_count, "pieces"),
    # Gemma 3 and 4
    "do_pan_and_scan": Option(_flag),
    "pan_and_scan_max_num_crops": Option(_count, "pieces"),
    "pan_and_scan_min_crop_size": Option(_count, "side"),
    "pan_and_scan_min_ratio_to_activate": Option(_number),
    "max_soft_tokens": Option(_count, "tokens"),
    # Idefics 3, SmolVLM
    "do_image_splitting": Option(_flag),
    "max_image_size": Option(_size, "size"),
    # MiniCPM-V
    "max_slice_nums": Option(_count, "pieces"),
    "use_image_id": Option(_flag),
    # Phi
    "num_crops": Option(_count, "pieces"),
    "dynamic_hd": Option(_count, "pieces"),
    # LFM2-VL, Perception LM
    "min_tiles": Option(_count, "pieces"),
    "max_tiles": Option(_count, "pieces"),
    "max_num_tiles": Option(_count, "pieces"),
    "min_image_tokens": Option(_count, "tokens"),
    "max_image_tokens": Option(_count, "tokens"),
}
# vLLM's clients of Qwen3-VL give these to the processor. Here frames are sampled once, before the processor.
_PROCESSOR_SAMPLING = {**SAMPLING, "do_sample_frames": Option(_flag)}


def read_media_request(body: Mapping[str, Any]) -> MediaRequest:
    """The options in the fields `mm_processor_kwargs` and `media_io_kwargs` of a chat request.

    Raises PositionError for an unknown option and for a value that no server takes; the server's limits come later.
    """
    processor = _processor(body.get("mm_processor_kwargs"), "mm_processor_kwargs")
    video = _video(body.get("media_io_kwargs"), "media_io_kwargs")
    sampling = {name: processor.pop(name) for name in SAMPLING if name in processor}
    if video or not sampling:
        return MediaRequest(processor, video)
    return MediaRequest(processor, sampling, "mm_processor_kwargs")


def read_part_options(part: Mapping[str, Any], field: str, kind: Kind, where: str) -> dict[str, Any]:
    """The options of an image or video part, in the object `field` with its URL, or else beside it."""
    given = part.get(field)
    inner = given if isinstance(given, dict) else {}
    options: dict[str, Any] = {}
    for name, option in PART_OPTIONS[kind].items():
        if inner.get(name) is not None:
            options[name] = option.check(inner[name], f"{where}.{field}.{name}")
        elif part.get(name) is not None:
            options[name] = option.check(part[name], f"{where}.{name}")
    _check_order(options, where)
    return options


def _processor(value: Any, where: str) -> dict[str, Any]:
    """The options of the processor; those of sampling are outside the scopes, wherever they were."""
    if value is None:
        return {}
    videos = {**PROCESSOR_OPTIONS, **_PROCESSOR_SAMPLING}
    scopes = {
        SCOPES["image"]: Option(partial(_scope, PROCESSOR_OPTIONS)),
        SCOPES["video"]: Option(partial(_scope, videos)),
    }
    options = _read(value, {**videos, **scopes}, where)
    scoped = options.get(SCOPES["video"], {})
    options |= {name: scoped.pop(name) for name in _PROCESSOR_SAMPLING if name in scoped}
    options.pop("do_sample_frames", None)
    return {name: option for name, option in options.items() if option != {}}


def _scope(known: Mapping[str, Option], value: Any, where: str) -> dict[str, Any]:
    return _read(value, known, where)


def _video(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if "audio" in expect(value, dict, where):
        raise PositionError(f"{where}.audio", "is not supported: this server takes no audio")
    kinds = {"image": Option(partial(_scope, {})), "video": Option(partial(_scope, SAMPLING))}
    video: dict[str, Any] = _read(value, kinds, where).get("video", {})
    return video


def _read(value: Any, known: Mapping[str, Option], where: str) -> dict[str, Any]:
    """The options of an object that are not null, each checked."""
    options: dict[str, Any] = {}
    for name, option in expect(value, dict, where).items():
        if name not in known:
            names = f"the known ones are {', '.join(known)}" if known else "there are none"
            raise PositionError(where, f"has the unknown option '{shorten(name)}'; {names}")
        if option is not None:
            options[name] = known[name].check(option, f"{where}.{name}")
    _check_order(options, where)
    return options


def _check_order(options: Mapping[str, Any], where: str) -> None:
    for what in ("pixels", "dynamic_patch", "patches", "tiles", "image_tokens"):
        low, high = f"min_{what}", f"max_{what}"
        if low in options and high in options and options[low] > options[high]:
            raise PositionError(f"{where}.{low}", f"is above {high}")
