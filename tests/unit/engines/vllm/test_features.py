# SPDX-License-Identifier: Apache-2.0
"""Features of pictures as bytes: what is packed is unpacked, as views, and damaged bytes are refused."""

import pickle
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from common.errors import RequestError
from common.shared_bytes import joined
from engines.vllm.features import pack, unpack

IDS = list(range(40))
MASK = torch.tensor([False, True, True, False])


def prompt() -> dict[str, Any]:
    """Two pictures and a video, with all that features may be: several dtypes, nested lists, small and large."""
    torch.manual_seed(0)
    sizes = torch.tensor([700, 3])
    data = {
        "pixel_values": torch.randint(0, 255, (703, 12), dtype=torch.uint8),
        "grid": torch.tensor([[1, 2, 3], [4, 5, 6]]),
        "tiles": [torch.randn(2, 3).bfloat16(), torch.randn(500, 3).bfloat16()],
        "video": torch.randn(1, 300).half(),
        "empty": torch.zeros(1, 0),
    }
    fields = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", sizes),
        "grid": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        "tiles": MultiModalFieldConfig.batched("image"),
        "video": MultiModalFieldConfig.batched("video"),
        "empty": MultiModalFieldConfig.shared("video", 1),
    }
    return {
        "prompt_token_ids": IDS,
        "mm_kwargs": MultiModalKwargsItems.from_hf_inputs(data, fields),  # type: ignore[arg-type] # any mapping does
        "mm_hashes": {"image": ["a", "b"], "video": ["c"]},
        "mm_placeholders": {
            "image": [PlaceholderRange(3, 5), PlaceholderRange(20, 4, MASK)],
            "video": [PlaceholderRange(8, 12)],
        },
    }


def packed(given: dict[str, Any] | None = None) -> torch.Tensor:
    return torch.from_numpy(joined(pack(given or prompt())))


def refused(data: torch.Tensor, ids: list[int] = IDS) -> None:
    with pytest.raises(RequestError, match="'multimodal' is damaged or does not fit the prompt") as error:
        unpack(data, ids)
    assert (error.value.kind, error.value.param) == ("invalid_request", "multimodal")


def test_what_is_packed_is_unpacked() -> None:
    given = prompt()
    built = unpack(packed(given), IDS)
    assert built == {"type": "multimodal", **given}
    for modality, items in given["mm_kwargs"].items():
        for item, other in zip(items, built["mm_kwargs"][modality], strict=True):
            assert isinstance(other, MultiModalKwargsItem)
            assert {name: element.field.keep_on_cpu for name, element in item.items()} == {
                name: element.field.keep_on_cpu for name, element in other.items()
            }


def test_large_tensors_are_aligned_views() -> None:
    data = packed()
    pixels: torch.Tensor = unpack(data, IDS)["mm_kwargs"]["image"][0]["pixel_values"].data  # type: ignore[assignment]
    offset = pixels.data_ptr() - data.data_ptr()
    assert 0 < offset < data.nbytes and offset % 64 == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mm_hashes", {"image": ["a"], "video": ["c"]}),
        ("mm_hashes", {"image": ["a", ""], "video": ["c"]}),
        ("mm_hashes", {"image": ["a", "b"]}),
        ("mm_placeholders", {"image": [PlaceholderRange(3, 5), PlaceholderRange(20, 4)], "video": []}),
        ("mm_placeholders", {"image": [PlaceholderRange(3, 5), PlaceholderRange(7, 4)], "video": [PlaceholderRange(20, 1)]}),
        ("mm_placeholders", {"image": [PlaceholderRange(3, 5), PlaceholderRange(37, 4)], "video": [PlaceholderRange(20, 1)]}),
        ("mm_placeholders", {"image": [PlaceholderRange(3, 5), PlaceholderRange(9, 0)], "video": [PlaceholderRange(20, 1)]}),
        ("mm_placeholders", {"image": [PlaceholderRange(-1, 5), PlaceholderRange(9, 1)], "video": [PlaceholderRange(20, 1)]}),
        ("mm_placeholders", {"image": [PlaceholderRange(3, 5, MASK), PlaceholderRange(9, 1)], "video": [PlaceholderRange(20, 1)]}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(field: str, value: Any) -> None:
    refused(packed({**prompt(), field: value}))


def test_features_of_a_longer_prompt_are_refused() -> None:
    unpack(packed(), IDS[:24])
    refused(packed(), IDS[:23])


@given(st.data())
def test_damaged_bytes_are_refused_or_features(data: st.DataObject) -> None:
    """Whatever the bytes are: nothing else is raised."""
    whole = joined(pack(prompt()))
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.lists(st.integers(0, min(700, len(whole) - 1)), max_size=4))
    damaged: NDArray[np.uint8] = whole[:cut].copy() if data.draw(st.booleans()) else whole.copy()
    for index in at:
        if index < len(damaged):
            damaged[index] ^= data.draw(st.integers(1, 255))
    try:
        built = unpack(torch.from_numpy(damaged), IDS)
    except RequestError:
        return
    assert built["prompt_token_ids"] == IDS


def test_bytes_never_run_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    for code in (1, 2):
        ext = msgspec.msgpack.Ext(code, pickle.dumps(print))
        message = np.frombuffer(
            msgspec.msgpack.encode([{"image": [{"x": {"data": ["uint8", [1], ext]}}]}, {}, {}]), np.uint8
        )
        data = np.zeros(64 + len(message), np.uint8)
        data[:16] = np.array([1, len(message)], "<i8").view(np.uint8)
        data[64:] = message
        refused(torch.from_numpy(data))
