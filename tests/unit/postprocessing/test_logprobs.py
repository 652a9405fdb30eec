# SPDX-License-Identifier: Apache-2.0
import pytest
from tokenizers import Tokenizer

from postprocessing.logprobs import TokenTable, prompt_logprob_entries, token_table


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


def test_prompt_entries_begin_with_null(qwen3: Tokenizer) -> None:
    ids = qwen3.encode("one two", add_special_tokens=False).ids
    entries = prompt_logprob_entries(token_table(qwen3), ids, [-1.5], [[ids[0]]], [[-0.25]])
    first = {"token": "one", "logprob": None, "bytes": [111, 110, 101], "top_logprobs": [], "id": ids[0], "rank": None}
    assert entries[0] == first
    assert (entries[1]["id"], entries[1]["rank"]) == (ids[1], None)
    assert [(one["id"], one["rank"]) for one in entries[1]["top_logprobs"]] == [(ids[0], 1)]
    assert (entries[1]["token"], entries[1]["logprob"]) == (" two", -1.5)
    assert [(top["token"], top["logprob"]) for top in entries[1]["top_logprobs"]] == [("one", -0.25)]
    assert prompt_logprob_entries(token_table(qwen3), [], []) == []


def test_prompt_entries_need_a_logprob_for_each_id_but_the_first(qwen3: Tokenizer) -> None:
    with pytest.raises(ValueError, match="2 prompt ids need 1 logprobs, got 2"):
        prompt_logprob_entries(token_table(qwen3), [1, 2], [0.0, 0.0])
