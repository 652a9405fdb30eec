# SPDX-License-Identifier: Apache-2.0
"""Prefill chunks that never split an image."""

from types import SimpleNamespace

import pytest

from engines.vllm.scheduler import whole_images

PER_IMAGE = 4
OFFSETS = [2, 7]


@pytest.mark.parametrize(
    ("computed", "new", "whole"),
    [
        (0, 12, 12),
        (0, 2, 2),  # just before the first image
        (0, 3, 2),
        (0, 5, 2),
        (0, 6, 6),
        (2, 3, 0),  # at its start: wait for a step with room
        (2, 4, 4),
        (4, 1, 0),  # the first half came from the cache
        (4, 2, 2),
        (0, 8, 7),
        (6, 1, 1),
        (11, 1, 1),
    ],
)
def test_a_chunk_never_ends_inside_an_image(computed, new, whole):
    features = [SimpleNamespace(mm_position=SimpleNamespace(offset=offset, length=PER_IMAGE)) for offset in OFFSETS]
    assert whole_images(SimpleNamespace(mm_features=features), computed, new) == whole
    assert whole_images(SimpleNamespace(mm_features=None), computed, new) == new
