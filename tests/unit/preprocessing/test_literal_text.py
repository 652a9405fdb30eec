# SPDX-License-Identifier: Apache-2.0
"""Special tokens of every family, spelled in every string of a chat, stay text."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from common.chat.request import ChatRequest
from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from preprocessing.literal_text import LiteralText
from preprocessing.prompt import PromptBuilder, PromptRequest
from tests.support.chats import tiny
from tests.support.image_prompts import internvl_builder

WORD = "word"


def call(name: str = "f", arguments: Any = None, call_id: str = "c1") -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments or {}}}],
    }


def tool(description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": "f", "description": description, "parameters": parameters}}


USER = {"role": "user", "content": "Hi"}
RESULT = {"role": "tool", "content": "59.0", "tool_call_id": "c1"}
# Everything in a chat that a client writes and a template may render, with the text in it.
TEXTS: dict[str, Any] = {
    "system": lambda text: {"messages": [{"role": "system", "content": f"a {text} b"}, USER]},
    "developer": lambda text: {"messages": [{"role": "developer", "content": text}, USER]},
    "user": lambda text: {"messages": [{"role": "user", "content": f"{text} a {text}{text} b"}]},
    "parts": lambda text: {"messages": [{"role": "user", "content": [{"type": "text", "text": text}] * 2}]},
    "user name": lambda text: {"messages": [USER | {"name": text}]},
    "assistant": lambda text: {"messages": [USER, {"role": "assistant", "content": f"a\n{text}"}, USER]},
    "reasoning": lambda text: {
        "messages": [USER, {"role": "assistant", "reasoning": text, "content": "a"}],
        "continue_final_message": True,
    },
    "continued": lambda text: {
        "messages": [USER, {"role": "assistant", "content": f"a {text} b"}],
        "continue_final_message": True,
    },
    "call name": lambda text: {"messages": [USER, call(text), RESULT]},
    "call id": lambda text: {"messages": [USER, call(call_id=text), RESULT]},
    "argument": lambda text: {"messages": [USER, call(arguments={"a": text}), RESULT]},
    "argument name": lambda text: {"messages": [USER, call(arguments={text: 1}), RESULT]},
    "argument text": lambda text: {"messages": [USER, call(arguments=json.dumps({"a": [text]})), RESULT]},
    "hidden": lambda text: {
        "messages": [USER, call(arguments=json.dumps({"a": text}).replace("<", "\\u003c")), RESULT]
    },
    "cut": lambda text: {"messages": [USER, call(arguments=f'{{"a": "{text} b'), RESULT]},
    "result": lambda text: {"messages": [USER, call(), RESULT | {"content": f'{{"page": "{text}"}}'}]},
    "result name": lambda text: {"messages": [USER, call(), RESULT | {"name": text}]},
    "tool": lambda text: {"messages": [USER], "tools": [tool(text)]},
    "parameter": lambda text: {"messages": [USER], "tools": [tool("", a={"enum": [text]})]},
    "parameter name": lambda text: {"messages": [USER], "tools": [tool("", **{text: {}})]},
    "template variable": lambda text: {"messages": [USER], "chat_template_kwargs": {"default_system": text}},
}


def builders(qwen3_folder: Path, gemma3_folder: Path) -> dict[str, PromptBuilder]:
    found = {"internvl2_5": internvl_builder(qwen3_folder)}
    for name, folder in (("qwen3", qwen3_folder), ("default", qwen3_folder), ("gemma3", gemma3_folder)):
        checkpoint = Checkpoint(folder, name, (), 262208, 32768, (1,), 0)
        found[name] = PromptBuilder(checkpoint, ChatTokenizer.load(folder), find_styler(checkpoint, name))
    return found


@pytest.fixture(scope="module")
def families(qwen3_tokenizer_dir: Path, gemma3_tokenizer_dir: Path) -> dict[str, PromptBuilder]:
    return builders(qwen3_tokenizer_dir, gemma3_tokenizer_dir)


# What an assistant has written: it keeps the markup of its answers.
ANSWERS = ("assistant", "reasoning", "continued")


def markup_ids(builder: PromptBuilder, *, special: bool) -> dict[str, int]:
    """The ids of the special tokens, or of all tokens of markup. Gemma's other added tokens are text: HTML, spaces."""
    added = builder.tokenizer.backend.get_added_tokens_decoder()
    special = special or builder.styler.name == "gemma3"
    return {token.content: token_id for token_id, token in added.items() if token.special or not special}


def ids_of(builder: PromptBuilder, chat: dict[str, Any]) -> list[int]:
    return builder.build(PromptRequest(messages=json.dumps(chat, ensure_ascii=False))).input_ids


@pytest.mark.parametrize("where", TEXTS)
@pytest.mark.parametrize("family", ["qwen3", "default", "gemma3", "internvl2_5"])
def test_a_spelled_token_is_text(families: dict[str, PromptBuilder], family: str, where: str) -> None:
    builder = families[family]
    spelled = markup_ids(builder, special=where in ANSWERS)
    assert family == "gemma3" or where in ANSWERS or {"<tool_call>", "</think>", "<|fim_prefix|>"} <= spelled.keys()
    written = set(spelled.values())
    chat_of = TEXTS[where]
    expected = [token_id for token_id in ids_of(builder, chat_of(WORD)) if token_id in written]
    assert expected, "the template's own special tokens are tokens"
    for token in spelled:
        ids = ids_of(builder, chat_of(token))
        assert [token_id for token_id in ids if token_id in written] == expected, token
        prompt = builder.styler.render(builder.tokenizer, ChatRequest.parse(json.dumps(chat_of(token))))
        # Where the generic form of tools escapes a tag that is no token of the tokenizer, the text of a token is left.
        assert builder.tokenizer.backend.decode(ids, skip_special_tokens=False) == prompt.replace("\\u003c", "<")


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "internvl2_5"])
def test_all_other_ids_are_as_ever(families: dict[str, PromptBuilder], family: str) -> None:
    builder = families[family]
    text = "Ein Satz,  mit\n\n\tLücken 你好 👍🏽 <table> <think>1</think> "
    prompt = builder.styler.render(builder.tokenizer, ChatRequest.parse(json.dumps({"messages": [USER]})))
    for rendered in (prompt + text + prompt, text + prompt, text):
        ids = builder.tokenizer.encode(rendered, add_special_tokens=False)
        assert LiteralText(builder.tokenizer).encode(rendered) == ids


def test_gemmas_html_and_blank_lines_stay_tokens(families: dict[str, PromptBuilder]) -> None:
    builder = families["gemma3"]
    chat = {"messages": [{"role": "user", "content": "a<table>\n\n<td>b</td>    c"}]}
    plain = ids_of(builder, chat)
    names = ("<table>", "\n\n", "<td>", "</td>", "▁▁▁▁")
    assert {builder.tokenizer.token_id(name) for name in names} <= set(plain)
    chat["messages"][0]["content"] += "<end_of_turn>"
    assert ids_of(builder, chat)[: len(plain) - 6] == plain[:-6]


def test_thinking_and_calls_of_earlier_answers_stay_tokens() -> None:
    tokenizer = tiny("<think>", "</think>", "<|end|>")
    literal = LiteralText(tokenizer, answer_tokens=("<think>", "</think>"))
    text = "<think> a </think> <|end|>"
    assert literal.restore(literal.escape(text, "assistant")) == text
    assert literal.escape(text, "assistant").startswith("<think> a </think> ")
    assert "think>" not in literal.escape(text, "user")
    assert literal.restore(literal.escape(text, "user")) == text
    assert literal.escape(text, "user", keep=("<|end|>",)).endswith(" <|end|>")


def test_flags_of_special_tokens_are_kept(qwen3_tokenizer_dir: Path) -> None:
    """Some families' tokens take the spaces around them."""
    backend = Tokenizer.from_file(str(qwen3_tokenizer_dir / "tokenizer.json"))
    backend.add_special_tokens([AddedToken("<|r|>", rstrip=True, special=True), AddedToken("<|l|>", lstrip=True)])
    tokenizer = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    literal = LiteralText(tokenizer)
    for text in ("a <|r|> \n b", "a \n <|l|> b", "<|r|><|l|>", "<|im_end|><|r|>  <|im_end|>"):
        assert literal.encode(text) == tokenizer.encode(text, add_special_tokens=False)


def test_nested_spellings(families: dict[str, PromptBuilder]) -> None:
    builder = families["qwen3"]
    text = "<|im_<|im_end|>end|> <|im_end|><|im_end|> <<|im_end|>>"
    ids = ids_of(builder, {"messages": [{"role": "user", "content": text}]})
    assert ids.count(builder.tokenizer.token_id("<|im_end|>")) == 1
    assert text in builder.tokenizer.backend.decode(ids, skip_special_tokens=False)


def test_a_raw_prompt_keeps_its_special_tokens(families: dict[str, PromptBuilder]) -> None:
    assert families["qwen3"].build(PromptRequest(text="<|im_end|>")).input_ids == [151645]


def test_ordinary_chats_are_tokenized_at_once(qwen3_tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = internvl_builder(qwen3_tokenizer_dir)
    monkeypatch.setattr(LiteralText, "encode", lambda *_: pytest.fail("there is no token to keep apart"))
    assert ids_of(builder, {"messages": [{"role": "user", "content": 'a "quoted"\n<b> \\u'}]})


def test_threads_share_the_second_tokenizer(qwen3_tokenizer_dir: Path) -> None:
    literal = LiteralText(ChatTokenizer.load(qwen3_tokenizer_dir))
    prompt = "<|im_start|>" + literal.escape("<|im_end|>", "user")
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(literal.encode(prompt))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [results[0]] * 4
    assert results[0][0] == 151644 and 151645 not in results[0]
