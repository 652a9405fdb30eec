# SPDX-License-Identifier: Apache-2.0
"""Reshaping in fewer steps: the numbers are PyTorch's, and what needs no copy stays a view."""

from collections.abc import Sequence

import pytest
import torch

from engines.vllm import quick_reshape
from engines.vllm.quick_reshape import QuickReshape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.int64])
@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_patches_are_pytorchs(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, memory: torch.memory_format, *, expanded: bool
) -> None:
    calls: list[torch.Size] = []
    copied = quick_reshape._copied

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        calls.append(tensor.shape)
        return copied(tensor)

    monkeypatch.setattr(quick_reshape, "_copied", counted)
    pixels = torch.randint(0, 255, (1, 3, 14 * 20, 14 * 26)).to(dtype).contiguous(memory_format=memory)
    patches = pixels.reshape(1, 3, 10, 2, 14, 13, 2, 14).permute(0, 2, 5, 3, 6, 1, 4, 7)
    if expanded:  # As one picture is two frames of Qwen-VL's.
        patches = patches.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    shapes: Sequence[Sequence[int]] = [(1, 520, -1), (patches.numel(),)]
    with QuickReshape():
        found = [patches.reshape(*shape) for shape in shapes] + [patches.reshape(shapes[0])]
    assert len(calls) == 3
    for one, shape in zip(found, [*shapes, shapes[0]], strict=True):
        assert one.dtype is dtype and one.is_contiguous() and torch.equal(one, patches.reshape(*shape))


def test_what_needs_no_copy_is_a_view() -> None:
    rows = torch.zeros(1000, 2, 400, dtype=torch.uint8)[:, :, :200]
    with QuickReshape():
        assert rows.reshape(2000, 200).data_ptr() == rows.data_ptr()
        assert rows.reshape(2000, 1, 200).data_ptr() == rows.data_ptr()


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_axes(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 255, (7, 12, 5, 1, 11, 9, 8), dtype=torch.uint8, generator=random)
    strange = (
        pixels[:, ::2, 1:]
        .permute(torch.randperm(7, generator=random).tolist())
        .unsqueeze(3)
        .expand(-1, -1, -1, 2, -1, -1, -1, -1)
    )
    with QuickReshape():
        found = strange.reshape(-1)
    assert torch.equal(found, strange.reshape(-1))


def test_other_tensors_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_reshape, "_copied", lambda tensor: pytest.fail("not for such a tensor"))
    large = torch.rand(600, 500)
    with QuickReshape():
        assert large.t().reshape(-1)[1] == large[1, 0]
        assert torch.rand(3, 4, 5).permute(1, 0, 2).reshape(-1).shape == (60,)
        assert large.reshape(shape=(300_000,)).shape == (300_000,)
        assert torch.rand(()).reshape(1).shape == (1,)
        with pytest.raises(RuntimeError, match="invalid for input"):
            large[:, :400].reshape(7)
