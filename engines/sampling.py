# SPDX-License-Identifier: Apache-2.0
"""The sampling parameters of a generation under an engine's own names."""

from collections.abc import Mapping
from typing import Any

from common.errors import RequestError
from engines.engine import Generation


def given_sampling(generation: Generation, names: Mapping[str, str | None]) -> dict[str, Any]:
    """The sampling parameters that the request sets.

    names: field of Generation -> the engine's name; None if the engine has no such parameter.
    Raises RequestError if the request sets one that the engine does not have.
    """
    given: dict[str, Any] = {}
    for field, name in names.items():
        value = getattr(generation, field)
        if value is None:
            continue
        if name is None:
            raise RequestError(f"this engine does not support {field}", param=field)
        given[name] = value
    return given
