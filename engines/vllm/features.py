# SPDX-License-Identifier: Apache-2.0
"""The features of a prompt's pictures and videos as one tensor of bytes: the contract's input `multimodal`.

`preprocessing` packs what the checkpoint's processor made, the engine unpacks it. The bytes are vLLM's own message
format for such features, without the parts of it that could run code. Tensors are aligned, and the unpacked ones are
views of the bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from vllm.inputs.engine import mm_input
from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange
from vllm.v1.serial_utils import CUSTOM_TYPE_RAW_VIEW, MsgpackDecoder, MsgpackEncoder

from common.errors import RequestError

NAME = "multimodal"
# Of the beginning of each buffer; as much as any vector instruction wants.
_ALIGNMENT = 64
# The header: the number of buffers, and the size of each.
_SIZES = np.dtype("<i8")


class _Place(msgspec.Struct, array_like=True):
    """Where the tokens of an item are. is_embed: bool [length], which of them get embeddings; None for all."""

    offset: int
    length: int
    is_embed: torch.Tensor | None


class _Features(msgspec.Struct, array_like=True):
    """By modality, one element per item in the order of their places."""

    items: MultiModalKwargsItems
    hashes: dict[str, list[str]]
    places: dict[str, list[_Place]]


class _Decoder(MsgpackDecoder):
    def ext_hook(self, code: int, data: memoryview) -> Any:
        # vLLM would unpickle other codes if an environment variable says so.
        if code != CUSTOM_TYPE_RAW_VIEW:
            raise ValueError(f"extension {code}")
        return data


def pack(prompt: Mapping[str, Any]) -> list[memoryview]:
    """The features of vLLM's multimodal input as bytes: pieces to put one after the other, views of its tensors."""
    places = {
        modality: [_Place(place.offset, place.length, place.is_embed) for place in places]
        for modality, places in prompt["mm_placeholders"].items()
    }
    features = _Features(prompt["mm_kwargs"], dict(prompt["mm_hashes"]), places)
    buffers = [memoryview(buffer).cast("B") for buffer in MsgpackEncoder().encode(features)]  # type: ignore[arg-type] # no Frame
    sizes = [len(buffer) for buffer in buffers]
    starts, _ = _layout(sizes)
    header = np.array([len(buffers), *sizes], _SIZES).tobytes()
    ends = [len(header), *(start + size for start, size in zip(starts, sizes, strict=True))]
    pieces = [memoryview(header)]
    for before, start, buffer in zip(ends, starts, buffers, strict=False):
        pieces += [memoryview(bytes(start - before)), buffer]
    return pieces


def unpack(packed: torch.Tensor, prompt_ids: list[int]) -> Any:
    """Build vLLM's multimodal input from a UINT8 tensor of one dimension, which must stay as it is.

    Raises RequestError if the bytes are damaged or do not fit the prompt.
    """
    try:
        features = _decode(packed)
        places = {
            modality: [PlaceholderRange(place.offset, place.length, place.is_embed) for place in places]
            for modality, places in features.places.items()
        }
        _check(features, len(prompt_ids))
    except Exception as error:  # Damaged bytes raise many types.
        raise RequestError(f"'{NAME}' is damaged or does not fit the prompt", param=NAME) from error
    return mm_input(prompt_ids, features.items, features.hashes, places)


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """The start of each buffer of these sizes, and the size of all with the header."""
    starts, end = [], (1 + len(sizes)) * _SIZES.itemsize
    for size in sizes:
        starts.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = starts[-1] + size
    return starts, end


def _decode(packed: torch.Tensor) -> _Features:
    data = packed.numpy()
    (count,) = data[: _SIZES.itemsize].view(_SIZES).tolist()
    if not 0 < count <= len(data):
        raise ValueError("header")
    sizes = data[_SIZES.itemsize : (1 + count) * _SIZES.itemsize].view(_SIZES).tolist()
    starts, size = _layout(sizes)
    if min(sizes) < 0 or size != len(data):
        raise ValueError("sizes")
    buffers = [data[start : start + size].data for start, size in zip(starts, sizes, strict=True)]
    features: _Features = _Decoder(_Features).decode(buffers)
    return features


def _check(features: _Features, length: int) -> None:
    """Raise ValueError unless each item has a hash, and a place of its own within the prompt."""
    if not features.items.keys() == features.hashes.keys() == features.places.keys():
        raise ValueError("modalities")
    taken: list[tuple[int, int]] = []
    for modality, items in features.items.items():
        places = features.places[modality]
        if not len(items) == len(features.hashes[modality]) == len(places) > 0:
            raise ValueError("items")
        if not all(features.hashes[modality]):
            raise ValueError("hashes")
        for place in places:
            mask = place.is_embed
            if mask is not None and (mask.dtype != torch.bool or mask.shape != (place.length,)):
                raise ValueError("is_embed")
            taken.append((place.offset, place.offset + place.length))
    taken.sort()
    ends = [0, *(end for _, end in taken)]
    if any(start < before or end <= start for (start, end), before in zip(taken, ends, strict=False)):
        raise ValueError("places overlap")
    if ends[-1] > length:
        raise ValueError("places past the prompt")
