# SPDX-License-Identifier: Apache-2.0
"""The GPUs' memory as nvidia-smi tells it."""

import pytest

from scripts.shared import toolchain


def test_the_memory_of_gpus_is_found_by_number_and_by_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "0, GPU-aa, 70000, 81559\n1, GPU-bb, [N/A], [N/A]\n"
    monkeypatch.setattr(toolchain, "_run", lambda command: lines)
    memory = (70000 * 2**20, 81559 * 2**20)
    assert toolchain.gpu_memory() == {"0": memory, "GPU-aa": memory}
    monkeypatch.setattr(toolchain, "_run", lambda command: "")
    assert toolchain.gpu_memory() == {}
