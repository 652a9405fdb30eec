# SPDX-License-Identifier: Apache-2.0
import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from postprocessing.detokenizer import Detokenizer, primer
from postprocessing.logprobs import TokenTable


@pytest.fixture(scope="session")
def llama2() -> Tokenizer:
    """A sentencepiece tokenizer as Llama 2 has it: its decoder strips the first space of a text."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "a", "▁", "▁Hello", "▁world", "!", "<unk>"]
    vocab = {piece: n for n, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


def run(tokenizer: Tokenizer, ids: list[int], *, skip_special_tokens: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
    return [*(detokenizer.feed(token_id) for token_id in ids), detokenizer.flush()]


TEXTS = [
    " leading and  double spaces ",
    "你好，世界！ 𠮷野家",
    "👨‍👩‍👧 family 🏳️‍🌈 x\u0301\u0302",
    "\n\n\ttabs\r\nand\0nul \ufffd\ufffd replacement",
    "def f():\n    return {'a': [1, 2]}\n",
    "مرحبا नमस्ते ไทย",
    "\ufffd" * 20,
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_token_by_token(text: str, qwen3: Tokenizer, gemma3: Tokenizer) -> None:
    for tokenizer in (qwen3, gemma3):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert "".join(run(tokenizer, ids)) == text


def test_characters_come_whole(qwen3: Tokenizer) -> None:
    ids = qwen3.encode("x👨‍👩 𠮷", add_special_tokens=False).ids
    pieces = run(qwen3, ids)
    assert "".join(pieces) == "x👨‍👩 𠮷"
    assert "" in pieces and not any("\ufffd" in piece for piece in pieces)


def test_leading_spaces_survive_a_sentencepiece_decoder(llama2: Tokenizer) -> None:
    ids = [llama2.token_to_id(piece) for piece in ("▁Hello", "▁world", "!", "▁", "▁Hello")]
    assert run(llama2, ids) == [" Hello", " world", "!", " ", " Hello", ""]


def test_byte_fallback_characters(llama2: Tokenizer) -> None:
    assert run(llama2, list("中".encode())) == ["", "", "中", ""]


def test_an_unfinished_character_is_flushed(qwen3: Tokenizer, llama2: Tokenizer) -> None:
    ids = qwen3.encode("\u200d", add_special_tokens=False).ids
    assert len(ids) == 2
    assert run(qwen3, ids[:1])[-1] == "\ufffd"
    assert run(llama2, [llama2.token_to_id("a"), 0xE4, 0xB8])[-1] == "\ufffd\ufffd"


def test_broken_bytes_behind_a_character_do_not_stall_the_stream(llama2: Tokenizer) -> None:
    # DecodeStream raises from here on: the run of bytes is no longer the text that was already returned.
    pieces = run(llama2, [*"中".encode(), 0x80, llama2.token_to_id("a"), llama2.token_to_id("▁world")])
    assert pieces == ["", "", "中", "", "\ufffda", " world", ""]


@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_special_tokens(qwen3: Tokenizer, skip_special_tokens: bool) -> None:
    ids = qwen3.encode("a<|im_end|><tool_call>b", add_special_tokens=False).ids
    text = "".join(run(qwen3, ids, skip_special_tokens=skip_special_tokens))
    assert text == ("a<tool_call>b" if skip_special_tokens else "a<|im_end|><tool_call>b")


def test_ids_without_a_token_are_passed_over(qwen3: Tokenizer) -> None:
    hello, world = qwen3.encode("Hello world", add_special_tokens=False).ids
    odd = [-1, 151_935, 10**7, 2**32, 2**70]
    assert "".join(run(qwen3, [*odd, hello, *odd, world, *odd])) == "Hello world"


def test_random_ids_decode_as_they_do_together(qwen3: Tokenizer) -> None:
    rng = random.Random(3)
    # Ids below 256 are the single bytes: they make every kind of broken UTF-8.
    for top in (256, 256, 256, 151_643):
        for _ in range(150):
            ids = [rng.randrange(top) for _ in range(rng.randint(1, 40))]
            assert "".join(run(qwen3, ids)) == qwen3.decode(ids, skip_special_tokens=True)


def test_long_runs_of_broken_bytes_decode_as_they_do_together(qwen3: Tokenizer) -> None:
    rng = random.Random(5)
    table = TokenTable(qwen3)
    ids = {table.token(token_id)[1]: token_id for token_id in range(256)}
    for _ in range(300):
        run_of_ids = [ids[(rng.choice(b"\x80\x98\x9f\xbd\xe4\xf0"),)] for _ in range(60)]
        assert "".join(run(qwen3, run_of_ids)) == qwen3.decode(run_of_ids)


def test_random_bytes_never_crash_a_byte_fallback_decoder(llama2: Tokenizer) -> None:
    rng = random.Random(4)
    for _ in range(300):
        ids = [rng.randrange(262) for _ in range(30)]
        text = "".join(run(llama2, ids))
        assert text.count("a") >= ids.count(llama2.token_to_id("a"))


def test_broken_bytes_are_not_held_for_ever(qwen3: Tokenizer) -> None:
    [byte] = [i for i in range(256) if TokenTable(qwen3).token(i)[1] == (0x80,)]  # begins no character
    detokenizer = Detokenizer(qwen3)
    pieces = []
    for _ in range(5_000):
        pieces.append(detokenizer.feed(byte))
        assert len(detokenizer._held) <= 8
    assert "".join([*pieces, detokenizer.flush()]) == "\ufffd" * 5_000


def test_the_primer_is_neutral(qwen3: Tokenizer, llama2: Tokenizer) -> None:
    for tokenizer in (qwen3, llama2):
        ids, text = primer(tokenizer)
        assert ids and text == "a"
