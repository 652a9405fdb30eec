# SPDX-License-Identifier: Apache-2.0
import pytest

from common.errors import RequestError


def test_survives_the_text_of_a_triton_error() -> None:
    error = RequestError('bad "stop" 中>>文\n', kind="context_length", param="messages")
    wrapped = (
        f"in ensemble 'ensemble', Failed to process the request(s) for model 'x', message: {error.encode()}, at: y"
    )
    decoded = RequestError.decode(wrapped)
    assert decoded is not None
    assert (decoded.message, decoded.kind, decoded.param) == ('bad "stop" 中>>文\n', "context_length", "messages")


def test_defaults() -> None:
    decoded = RequestError.decode(RequestError("no").encode())
    assert decoded is not None
    assert (decoded.kind, decoded.param, str(decoded)) == ("invalid_request", None, "no")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CUDA error: out of memory",
        "<<request-error ",
        ">> <<request-error ",
        "<<request-error not json>>",
        "<<request-error []>>",
        '<<request-error {"kind": "internal", "param": null}>>',
        '<<request-error {"kind": "strange", "param": null, "message": "m"}>>',
    ],
)
def test_other_text_is_no_error_of_ours(text: str) -> None:
    assert RequestError.decode(text) is None
