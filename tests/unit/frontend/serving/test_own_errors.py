# SPDX-License-Identifier: Apache-2.0
"""Errors from behind a plan: one that the endpoint renames has the original as its cause, any other is the same."""

from typing import Any

import pytest

from common.errors import RequestError
from frontend.endpoints.responses import ResponsePlan
from frontend.serving.answer import Plan


def plan(own: RequestError | None) -> Plan:
    """A plan that answers every error with `own`, or with the error itself."""
    methods: dict[str, Any] = {"own_error": lambda self, error: own or error}
    made = type("FakePlan", (ResponsePlan,), methods)
    return object.__new__(made)


def test_an_error_that_stays_is_no_cause_of_itself() -> None:
    error = RequestError("ours", kind="internal")
    with pytest.raises(RequestError) as caught, plan(None).own_errors():
        raise error
    assert caught.value is error and error.__cause__ is None


def test_a_renamed_error_has_a_cause() -> None:
    error, own = RequestError("max_tokens"), RequestError("max_output_tokens")
    with pytest.raises(RequestError) as caught, plan(own).own_errors():
        raise error
    assert caught.value is own and own.__cause__ is error
