# SPDX-License-Identifier: Apache-2.0
"""Every pin has its hashes, and there are no others."""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"


@pytest.mark.parametrize("name", sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
def test_the_hashes_are_of_the_pins(name: str) -> None:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (REQUIREMENTS / f"{name}.txt").read_text(), re.MULTILINE)
    text = (REQUIREMENTS / f"{name}.hashes").read_text()
    hashed = re.findall(r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert {(normal(one), version) for one, version in pins} == {(normal(one), version) for one, version, _ in hashed}
    assert pins


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
