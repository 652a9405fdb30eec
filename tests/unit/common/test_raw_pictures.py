# SPDX-License-Identifier: Apache-2.0
"""Pictures of different sizes as bytes, and bytes that are none."""

import numpy as np
import pytest

from common.raw_pictures import pack, unpack
from common.shared_bytes import joined

PICTURES = [np.arange(3 * h * w, dtype=np.uint8).reshape(h, w, 3) for h, w in ((2, 5), (1, 1), (7, 3))]


def test_there_and_back() -> None:
    for count in (1, 3):
        read = unpack(joined(pack(PICTURES[:count])))
        assert len(read) == count
        assert all(np.array_equal(one, other) for one, other in zip(read, PICTURES, strict=False))
        assert [one.shape for one in read] == [one.shape for one in PICTURES[:count]]


@pytest.mark.parametrize("change", ["empty", "short", "cut", "longer", "none", "many", "negative"])
def test_damaged_bytes(change: str) -> None:
    packed = joined(pack(PICTURES))
    header = packed.view(np.uint8).copy()
    match change:
        case "empty":
            header = header[:0]
        case "short":
            header = header[:9]
        case "cut":
            header = header[:-1]
        case "longer":
            header = np.append(header, np.uint8(0))
        case "none" | "many":
            header[:4] = np.array([0 if change == "none" else 2**30], "<i4").view(np.uint8)
        case _:
            header[4:12] = np.array([-2, -5], "<i4").view(np.uint8)
    with pytest.raises(ValueError, match=r"damaged|do not fit"):
        unpack(header)
