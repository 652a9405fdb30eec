# SPDX-License-Identifier: Apache-2.0
"""The limits of sampling parameters, for values that have travelled in single precision."""

import math
import struct

import pytest

from common.errors import RequestError
from common.sampling import SAMPLING, Limits

FRACTIONS = [(name, one.limits) for name, one in SAMPLING.items() if one.datatype == "FP32"]


def single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


@pytest.mark.parametrize(("name", "limits"), FRACTIONS)
def test_the_limits_themselves_are_inside(name: str, limits: Limits) -> None:
    for limit in (limits.low, limits.high):
        limits.check(single(limit), name)


@pytest.mark.parametrize(("name", "limits"), FRACTIONS)
def test_what_is_outside_is_refused(name: str, limits: Limits) -> None:
    for value in (limits.low - 1e-3, limits.high + 1e-3, math.inf, -math.inf, math.nan):
        with pytest.raises(RequestError, match=f"^{name} must be from") as raised:
            limits.check(single(value), name)
        assert raised.value.param == name
