# SPDX-License-Identifier: Apache-2.0
"""What frontends are told of a model."""

import pytest

from common.served_model import EMBEDDING, ServedModelInfo


def test_what_was_written_is_read() -> None:
    info = ServedModelInfo(
        names=("qwen3", "Qwen/Qwen3-0.6B"), kind=EMBEDDING, max_model_len=4096, modalities=("text",), max_queued=0
    )
    assert ServedModelInfo.from_json(info.to_json()) == info
    assert ServedModelInfo.from_json("{}") == ServedModelInfo.from_json("") == ServedModelInfo()


def test_what_is_unknown_is_left_out() -> None:
    assert ServedModelInfo.from_json('{"names": ["a"], "later": 1, "max_queued": null}') == ServedModelInfo(
        names=("a",)
    )


@pytest.mark.parametrize("text", ["[]", '"a"', "{", '{"names": [1]}', '{"kind": "speech"}', '{"modalities": [null]}'])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError):
        ServedModelInfo.from_json(text)
