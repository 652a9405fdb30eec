# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace

import pytest
from tokenizers import Tokenizer

from common.answer_options import AnswerOptions
from families.parsers import AnswerFormat
from postprocessing.answer_stream import AnswerStream, StreamDelta
from tests.support.answers import THINK, Answer, add_up, stream

QWEN3 = AnswerFormat(reasoning=THINK, tool_parser="hermes")
PLAIN = AnswerFormat()
CHAT = AnswerOptions(chat=True, tools=True)
RAW = AnswerOptions()
END = frozenset({151645})  # <|im_end|>

CALL = '<tool_call>\n{"name": "f", "arguments": {"city": "北京"}}\n</tool_call>'


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def one_by_one(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    return [[token_id] for token_id in encode(tokenizer, text)]


def test_a_whole_answer_of_qwen3(qwen3: Tokenizer) -> None:
    text = f"<think>\n好的，用户问天气。\n</think>\n\n我来查😊。\n{CALL}\n{CALL}<|im_end|>"
    expected = Answer("我来查😊。", "好的，用户问天气。", [["f", '{"city": "北京"}']] * 2)
    for groups in ([encode(qwen3, text)], one_by_one(qwen3, text)):
        deltas = stream(qwen3, groups, QWEN3, CHAT, end_ids=END)
        assert add_up(deltas) == expected
        assert [delta.finish_reason for delta in deltas] == [None] * (len(groups) - 1) + ["tool_calls"]
        assert deltas[-1].completion_tokens == len(encode(qwen3, text))
        # The block's tags are not counted; the line ends next to them are.
        assert deltas[-1].reasoning_tokens == len(encode(qwen3, "\n好的，用户问天气。\n"))
        assert not deltas[-1].stop_engine


def test_a_tag_before_text_that_is_no_call_is_not_shown(qwen3: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(qwen3.to_str())
    tokenizer.add_special_tokens(["<|python_tag|>"])
    for text, expected in (
        ("<|python_tag|>print(1)", Answer("print(1)")),
        ('<|python_tag|>{"name": "f", "parameters": {}}', Answer("", "", [["f", "{}"]])),
    ):
        deltas = stream(tokenizer, one_by_one(tokenizer, text), AnswerFormat(tool_parser="llama3_json"), CHAT)
        assert add_up(deltas) == expected


def test_tool_calls_are_openai_deltas(qwen3: Tokenizer) -> None:
    [delta] = stream(qwen3, [encode(qwen3, f"{CALL}\n{CALL}")], QWEN3, CHAT)
    first, arguments, second, more = delta.tool_calls
    assert first == {"index": 0, "id": first["id"], "type": "function", "function": {"name": "f", "arguments": ""}}
    assert arguments == {"index": 0, "function": {"arguments": '{"city": "北京"}'}}
    assert second["index"] == more["index"] == 1
    assert second["id"] != first["id"]


@pytest.mark.parametrize(
    ("text", "engine_finish", "tool_choice", "reason"),
    [
        ("hello", 1, "auto", "stop"),
        ("hello", 2, "auto", "stop"),
        ("hello", 3, "auto", "length"),
        ("hello", 4, "auto", "timeout"),
        ("hello", 5, "auto", "cancelled"),
        (CALL, 1, "auto", "tool_calls"),
        (CALL, 2, "required", "tool_calls"),
        (CALL, 3, "auto", "length"),
        (CALL, 5, "auto", "cancelled"),
        (CALL, 1, "function:f", "stop"),
        (CALL, 1, "none", "stop"),
    ],
)
def test_finish_reasons(qwen3: Tokenizer, text: str, engine_finish: int, tool_choice: str, reason: str) -> None:
    options = replace(CHAT, tool_choice=tool_choice)
    deltas = stream(qwen3, one_by_one(qwen3, text), QWEN3, options, finish=engine_finish)
    assert deltas[-1].finish_reason == reason


@pytest.mark.parametrize(
    ("finish", "stop", "arguments"),
    [
        (1, (), '{"city": "北京"}'),
        (2, (), '{"city": "北京"}'),
        (3, (), '{"city": "北京'),
        (4, (), '{"city": "北京'),
        (5, (), '{"city": "北京'),
        (3, ("京",), '{"city": "北"}'),
    ],
)
def test_arguments_are_completed_unless_the_answer_was_cut(
    qwen3: Tokenizer, finish: int, stop: tuple[str, ...], arguments: str
) -> None:
    text = CALL[: CALL.index("京") + 1]
    deltas = stream(qwen3, one_by_one(qwen3, text), QWEN3, replace(CHAT, stop=stop), finish=finish)
    assert add_up(deltas) == Answer("", "", [["f", arguments]])


def test_an_unknown_engine_finish_is_refused(qwen3: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"reason 9; known: \[1, 2, 3, 4, 5\]"):
        AnswerStream(qwen3, PLAIN, RAW, END).feed([], engine_finish=9)


@pytest.mark.parametrize("engine_finish", [1, 2])
@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_the_end_id_is_no_text(qwen3: Tokenizer, engine_finish: int, skip_special_tokens: bool) -> None:
    options = AnswerOptions(skip_special_tokens=skip_special_tokens)
    ids = encode(qwen3, "hello<|im_end|>")
    [delta] = stream(qwen3, [ids], PLAIN, options, finish=engine_finish, end_ids=END)
    assert (delta.text, delta.completion_tokens) == ("hello", 2)
    [delta] = stream(qwen3, [ids[:1]], PLAIN, options, finish=engine_finish, end_ids=END)
    assert (delta.text, delta.completion_tokens) == ("hello", 1)


def test_an_end_id_that_did_not_end_the_answer_is_text(qwen3: Tokenizer) -> None:
    options = AnswerOptions(skip_special_tokens=False)
    ids = encode(qwen3, "a<|im_end|>b<|im_end|>")
    assert add_up(stream(qwen3, [ids], PLAIN, options, finish=1, end_ids=END)).content == "a<|im_end|>b"
    assert add_up(stream(qwen3, [ids], PLAIN, options, finish=3, end_ids=END)).content == "a<|im_end|>b<|im_end|>"


def test_a_character_cut_short_by_the_end(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "a\u200d")
    [delta] = stream(qwen3, [ids[:-1]], PLAIN, RAW, finish=3)
    assert delta.text == "a\ufffd"


def test_an_end_without_ids(qwen3: Tokenizer) -> None:
    answers = AnswerStream(qwen3, PLAIN, AnswerOptions(stop=("lower",)), END)
    assert answers.feed(encode(qwen3, "hello lo")).text == "hello "
    last = answers.feed([], engine_finish=1)
    assert (last.text, last.finish_reason, last.completion_tokens, last.reasoning_tokens) == ("lo", "stop", 2, 0)


def test_a_stop_string_inside_a_delta_discards_the_rest(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "one two three four five")
    assert len(ids) == 5
    [delta] = stream(qwen3, [ids], PLAIN, AnswerOptions(stop=("three",)), finish=3)
    assert (delta.text, delta.finish_reason, delta.completion_tokens) == ("one two ", "stop", 3)
    assert not delta.stop_engine


def test_a_stop_string_stops_the_engine(qwen3: Tokenizer) -> None:
    answers = AnswerStream(qwen3, PLAIN, AnswerOptions(stop=("three", "!"), include_stop=True), END)
    first = answers.feed(encode(qwen3, "one two th"))
    assert (first.text, first.finish_reason, first.stop_engine) == ("one two ", None, False)
    ended = answers.feed(encode(qwen3, "ree four"))
    assert (ended.text, ended.finish_reason, ended.stop_engine) == ("three", "stop", True)
    assert (first.stop_string, ended.stop_string) == (None, "three")
    assert answers.feed(encode(qwen3, " five"), engine_finish=5) == StreamDelta()


def test_stop_strings_see_the_raw_text(qwen3: Tokenizer) -> None:
    options = replace(CHAT, stop=("</think>", "</tool_call>"))
    for text, expected in [
        ("<think>\na\n</think>b", Answer("", "a\n")),
        (f"Look: {CALL}", Answer("Look:", "", [["f", '{"city": "北京"}']])),
    ]:
        deltas = stream(qwen3, one_by_one(qwen3, text), QWEN3, options)
        assert add_up(deltas) == expected
        assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]


def test_without_chat_text_is_raw(qwen3: Tokenizer) -> None:
    text = f"<think>\na\n</think>\n\n{CALL}"
    deltas = stream(qwen3, one_by_one(qwen3, text), QWEN3, replace(CHAT, chat=False))
    assert add_up(deltas) == Answer(text)
    assert deltas[-1].reasoning_tokens == 0


def test_counts_so_far_if_they_are_asked_for(qwen3: Tokenizer) -> None:
    groups = one_by_one(qwen3, "<think>\nso far</think>\n\nHello")
    plain = stream(qwen3, groups, QWEN3, CHAT)
    assert {(delta.completion_tokens, delta.reasoning_tokens) for delta in plain[:-1]} == {(None, None)}
    counted = stream(qwen3, groups, QWEN3, replace(CHAT, continuous_usage=True))
    assert [delta.completion_tokens for delta in counted] == list(range(1, len(groups) + 1))
    assert [delta.reasoning_tokens for delta in counted] == sorted(delta.reasoning_tokens for delta in counted)
    assert counted[-1] == plain[-1]


def test_reasoning_that_never_ends(qwen3: Tokenizer) -> None:
    deltas = stream(qwen3, one_by_one(qwen3, "<think>\nso far"), QWEN3, CHAT, finish=3)
    assert add_up(deltas) == Answer("", "so far")
    assert (deltas[-1].finish_reason, deltas[-1].completion_tokens, deltas[-1].reasoning_tokens) == ("length", 4, 3)


def test_reasoning_tokens_where_the_prompt_opened_the_block(qwen3: Tokenizer) -> None:
    answer_format = replace(QWEN3, reasoning_starts_open=True)
    [delta] = stream(qwen3, [encode(qwen3, "one two</think>three")], answer_format, CHAT)
    assert (delta.reasoning, delta.text, delta.reasoning_tokens, delta.completion_tokens) == ("one two", "three", 2, 4)


def test_odd_ids_do_not_end_the_stream(qwen3: Tokenizer) -> None:
    [delta] = stream(qwen3, [[-1, *encode(qwen3, "hello"), 10**7]], QWEN3, replace(CHAT, logprobs=True))
    assert (delta.text, delta.completion_tokens) == ("hello", 3)


def test_one_logprob_entry_per_consumed_id(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "one two three")
    options = AnswerOptions(logprobs=True, top_logprobs=1, stop=("two",))
    delta = AnswerStream(qwen3, PLAIN, options, END).feed(
        ids,
        logprobs=[-0.5, -math.inf, math.nan],
        top_ids=[[ids[0], ids[1]]] * 3,
        top_logprobs=[[-0.5, -1.0]] * 3,
    )
    top = [{"token": "one", "logprob": -0.5, "bytes": [111, 110, 101]}]
    assert list(delta.logprobs) == [
        {"token": "one", "logprob": -0.5, "bytes": [111, 110, 101], "top_logprobs": top},
        {"token": " two", "logprob": -9999.0, "bytes": [32, 116, 119, 111], "top_logprobs": top},
    ]


def test_logprobs_only_where_asked_for_and_known(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "one")
    assert AnswerStream(qwen3, PLAIN, RAW, END).feed(ids, logprobs=[-1.0]).logprobs == ()
    answers = AnswerStream(qwen3, PLAIN, AnswerOptions(logprobs=True), END)
    assert answers.feed(ids).logprobs == ()
    [entry] = answers.feed(ids, logprobs=[-1.0], top_ids=[ids], top_logprobs=[[-1.0]]).logprobs
    assert entry["top_logprobs"] == []


def test_a_long_answer_in_one_delta(qwen3: Tokenizer) -> None:
    arguments = '{"text": "' + "words and words, " * 4_000 + '"}'
    text = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    assert add_up(stream(qwen3, [encode(qwen3, text)], QWEN3, CHAT)).calls == [["f", arguments]]


@pytest.mark.parametrize(
    ("include_stop", "engine_finish", "text"),
    [(False, 2, "a b"), (True, 2, "a b c"), (False, 3, "a b c"), (False, 1, "a b")],
)
def test_the_text_of_a_stop_token(qwen3: Tokenizer, include_stop: bool, engine_finish: int, text: str) -> None:
    """It is left out like a stop string, unless the request includes it or something else ended the answer."""
    ids = encode(qwen3, "a b c")
    options = replace(RAW, stop_token_ids=(ids[-1],), include_stop=include_stop)
    answer = AnswerStream(qwen3, PLAIN, options, END)
    first, last = answer.feed(ids[:-1]), answer.feed(ids[-1:], engine_finish=engine_finish)
    assert first.text + last.text == text
    assert last.completion_tokens == len(ids)


def test_a_stop_string_within_the_first_tokens_ends_nothing(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "a b c b d")
    assert len(ids) == 5
    for min_tokens, text in ((0, "a"), (1, "a"), (2, "a b c"), (3, "a b c"), (4, "a b c b d")):
        answer = AnswerStream(qwen3, PLAIN, replace(RAW, stop=(" b",), min_tokens=min_tokens), END)
        deltas = [answer.feed([token], engine_finish=3 if n == 4 else None) for n, token in enumerate(ids)]
        assert "".join(delta.text for delta in deltas) == text


def test_a_stop_string_that_only_begins_within_the_first_tokens_ends_the_answer(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "a b c b d")
    for min_tokens, text in ((1, "a"), (2, "a"), (3, "a b c b d"), (4, "a b c b d")):
        answer = AnswerStream(qwen3, PLAIN, replace(RAW, stop=(" b c",), min_tokens=min_tokens), END)
        deltas = [answer.feed([token], engine_finish=3 if n == 4 else None) for n, token in enumerate(ids)]
        assert "".join(delta.text for delta in deltas) == text


def test_token_ids_are_those_consumed(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "one two three four five")
    options = AnswerOptions(stop=("three",), token_ids=True)
    deltas = stream(qwen3, [ids[:1], ids[1:]], PLAIN, options, finish=3)
    assert [list(delta.token_ids) for delta in deltas] == [ids[:1], ids[1:3]]
    [delta] = stream(qwen3, [ids], PLAIN, RAW, finish=3)
    assert delta.token_ids == ()


def test_token_ids_have_the_end(qwen3: Tokenizer) -> None:
    ids = encode(qwen3, "hello<|im_end|>")
    [delta] = stream(qwen3, [ids], PLAIN, AnswerOptions(token_ids=True), finish=1, end_ids=END)
    assert (delta.text, list(delta.token_ids)) == ("hello", ids)
