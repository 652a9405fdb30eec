# SPDX-License-Identifier: Apache-2.0
"""The logger of a Triton model."""

import json

import pytest

from common.logs import about
from python_backend.config import TRITON_MODEL
from python_backend.logs import model_logger


def test_a_models_logger_follows_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    log = model_logger("a-model", verbose=False, environment={"TRITON_CHAT_LOG_FORMAT": "json"})
    log.debug("too much")
    log.error("it failed", extra=about("client/1/chatcmpl-2-0"))
    read = json.loads(capsys.readouterr().err)
    assert (read["message"], read["request_id"]) == ("it failed", "client/1")
    assert read["triton_request_id"] == "client/1/chatcmpl-2-0"
    model_logger("a-model", verbose=False, environment={"TRITON_CHAT_LOG_LEVEL": "error"}).warning("no")
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="unknown log format 'xml'; known: text, json"):
        model_logger("a-model", verbose=False, environment={"TRITON_CHAT_LOG_FORMAT": "xml"})


@pytest.mark.parametrize(("triton_model", "written"), [("qwen3.g2.vit", "qwen3.g2.vit"), ("vit", "vit"), ("", "vit")])
def test_a_line_names_the_model_that_wrote_it(
    capsys: pytest.CaptureFixture[str], triton_model: str, written: str
) -> None:
    model_logger("vit", verbose=False, environment={TRITON_MODEL: triton_model}).warning("slow")
    assert f" WARNING {written}: slow" in capsys.readouterr().err
