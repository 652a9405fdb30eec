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
