# SPDX-License-Identifier: Apache-2.0
"""The kinds of a RequestError: their way through Triton, and their HTTP status."""

from typing import Any

import pytest

from common.errors import RequestError
from frontend.errors import describe, upstream_error


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request", 400),
        ("context_length", 400),
        ("cancelled", 499),
        ("timeout", 504),
        ("unavailable", 503),
        ("internal", 500),
    ],
)
def test_errors_keep_their_kind_through_triton(kind: Any, status: int) -> None:
    sent = RequestError("why", kind=kind, param="prompt")
    got = upstream_error(f"in ensemble 'ensemble', Failed to process: {sent.encode()}\nat line 3")
    assert (got.kind, got.message, got.param) == (kind, "why", "prompt")
    assert describe(got)[0].status == status


def test_too_little_shared_memory_passes() -> None:
    got = upstream_error(
        "in ensemble 'ensemble', Failed to increase the shared memory pool size for key 'x_1_2' to 1048576 bytes. If you "
        "are running Triton inside docker, use '--shm-size' flag to control the shared memory region size."
    )
    assert got.kind == "unavailable" and "shared memory" in got.message
