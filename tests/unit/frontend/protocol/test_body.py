# SPDX-License-Identifier: Apache-2.0
"""What all bodies have in common: wrong ones cost little, and nothing of them stays."""

from typing import Any

import pytest
from pydantic import ValidationError

from frontend.protocol.chat import ChatBody
from frontend.protocol.common import Body
from frontend.protocol.completions import CompletionBody
from frontend.protocol.embeddings import EmbeddingBody, RerankBody, ScoreBody
from frontend.protocol.tokenize import DetokenizeBody

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def refused(body: type[Body], fields: dict[str, Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        body.model_validate(fields)
    return caught.value


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (DetokenizeBody, {"tokens": ["x"] * 1000}),
        (CompletionBody, {"prompt": "x", "allowed_token_ids": ["x"] * 1000}),
        (CompletionBody, {"prompt": "x", "logit_bias": {str(one): "x" for one in range(1000)}}),
        (ChatBody, HELLO | {"tools": [1] * 1000}),
        (ChatBody, HELLO | {"structured_outputs": {"choice": [1] * 1000}}),
        (ScoreBody, {"text_1": "x", "text_2": [1] * 1000}),
        (EmbeddingBody, {"input": ["x", *[1] * 1000]}),
    ],
)
def test_a_list_ends_at_its_first_mistake(body: type[Body], fields: dict[str, Any]) -> None:
    """Two million ids of the wrong type took 1.7 GB and half a minute, in which nobody else was served."""
    assert refused(body, fields).error_count() == 1


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (RerankBody, {"query": "x", "documents": [1]}),
        (EmbeddingBody, {"input": [{}]}),
        (ScoreBody, {"text_1": ["x", "y"], "text_2": ["x"]}),
        (CompletionBody, {"prompt": "x", "truncate_prompt_tokens": 0}),
    ],
)
def test_a_mistake_holds_no_frames(body: type[Body], fields: dict[str, Any]) -> None:
    """They lead to the request and from there to the error, a circle that Python's garbage collector does not see."""
    for mistake in refused(body, fields).errors():
        cause = mistake["ctx"]["error"]
        assert (cause.__traceback__, cause.__context__, cause.__cause__) == (None, None, None)
