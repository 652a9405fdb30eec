# SPDX-License-Identifier: Apache-2.0
import json
import math
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from postprocessing.logprobs import LOWEST, TokenTable, prompt_logprobs_json, token_table


@pytest.mark.parametrize(
    "text", [" Hello  world\n", "你好 𠮷", "👨‍👩‍👧\u200d", "é\0\ufffd", "<|im_end|><tool_call>", "<0xE4>"]
)
def test_bytes_of_tokens_add_up_to_the_text(text: str, qwen3: Tokenizer, gemma3: Tokenizer) -> None:
    for tokenizer in (qwen3, gemma3):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        table = token_table(tokenizer)
        assert b"".join(bytes(table.token(token_id)[1]) for token_id in ids) == text.encode()


def test_incomplete_characters_are_written_as_bytes(qwen3: Tokenizer, gemma3: Tokenizer) -> None:
    first, second = qwen3.encode("\u200d", add_special_tokens=False).ids
    table = TokenTable(qwen3)
    assert table.token(first) == ("\\xe2\\x80", (0xE2, 0x80))
    assert table.token(second) == ("\\x8d", (0x8D,))
    assert TokenTable(gemma3).token(gemma3.token_to_id("<0xE4>")) == ("\\xe4", (0xE4,))
    assert TokenTable(gemma3).token(gemma3.token_to_id("▁Hello")) == (" Hello", tuple(b" Hello"))


def test_every_byte_level_token_has_its_bytes(qwen3: Tokenizer) -> None:
    table = TokenTable(qwen3)
    single = {table.token(token_id)[1] for token_id in range(256)}
    assert single == {(byte,) for byte in range(256)}


def test_ids_without_a_token_are_empty(qwen3: Tokenizer) -> None:
    assert [TokenTable(qwen3).token(i) for i in (-1, 151_935, 2**40)] == [("", ())] * 3


def entries_of(tokenizer: Tokenizer, ids: Any, logprobs: Any, ranks: Any = None) -> Any:
    given = (
        np.array(ids, np.int32),
        np.array(logprobs, np.float32),
        None if ranks is None else np.array(ranks, np.int32),
    )
    return json.loads(prompt_logprobs_json(token_table(tokenizer), *given))


def test_prompt_entries_begin_with_null(qwen3: Tokenizer) -> None:
    one, two = qwen3.encode("one two", add_special_tokens=False).ids
    entries = entries_of(qwen3, [[one, one], [two, one]], [[math.nan, 0.0], [-1.5, -0.25]])
    of_one = {"token": "one", "bytes": [111, 110, 101], "id": one}
    top = {**of_one, "logprob": -0.25, "rank": 1}
    of_two = {"token": " two", "bytes": list(b" two"), "id": two}
    assert entries == [
        {**of_one, "logprob": None, "rank": None, "top_logprobs": []},
        {**of_two, "logprob": -1.5, "rank": None, "top_logprobs": [top]},
    ]
    (entry,) = entries_of(qwen3, [[one, two]], [[0.0, 0.0]], [3])
    assert (entry["logprob"], entry["rank"], entry["top_logprobs"]) == (None, None, [])


def test_prompt_entries_have_every_value_as_the_engine_sent_it(qwen3: Tokenizer) -> None:
    """Ids without a token, characters that JSON escapes, values that it does not have, and single precision."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 151_936, (300, 4)).astype(np.int32)
    ids[:2, 1] = 151_935, qwen3.token_to_id('"')
    logprobs = -np.exp(random.normal(0, 9, ids.shape)).astype(np.float32)
    logprobs[1, :3] = -np.inf, np.nan, np.inf
    ranks = random.integers(1, 151_936, len(ids))
    table = token_table(qwen3)
    for entry, row, values, rank in zip(
        entries_of(qwen3, ids, logprobs, ranks)[1:], ids.tolist()[1:], logprobs[1:], ranks.tolist()[1:], strict=True
    ):
        found = [entry, *entry["top_logprobs"]]
        clipped = [float(one) if np.isfinite(one) and one > LOWEST else LOWEST for one in values]
        assert [one["id"] for one in found] == row
        assert [one["logprob"] for one in found] == clipped
        assert [one["rank"] for one in found] == [rank, 1, 2, 3]
        assert [(one["token"], tuple(one["bytes"])) for one in found] == [table.token(one) for one in row]


def test_prompt_entries_need_a_logprob_and_a_rank_for_each_id(qwen3: Tokenizer) -> None:
    for ids, logprobs, ranks in (
        ([[1], [2]], [[0.0]], None),
        ([[1, 2], [2, 3]], [[0.0], [0.0]], None),
        ([[1], [2]], [[0.0], [0.0]], [1]),
    ):
        with pytest.raises(ValueError, match="prompt ids of shape"):
            entries_of(qwen3, ids, logprobs, ranks)
