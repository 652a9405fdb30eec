# SPDX-License-Identifier: Apache-2.0
import pytest

from common.errors import RequestError
from families.detection import find_styler
from families.parsers import AnswerFormat
from tests.support.answers import THINK
from tests.support.chats import HELLO, chat, checkpoint, tiny


class TestDefault:
    styler = find_styler(checkpoint("mistral"))

    def test_chatml_where_there_is_no_template(self) -> None:
        tokenizer = tiny("<|im_start|>", "<|im_end|>")
        assert self.styler.render(tokenizer, chat(HELLO)) == (
            "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
        )
        assert self.styler.stop_ids(tokenizer) == (tokenizer.token_id("<|im_end|>"),)
        assert self.styler.answer_format(tokenizer) == AnswerFormat(tool_parser="hermes")

    def test_neither_template_nor_chatml(self) -> None:
        assert self.styler.answer_format(tiny()) == AnswerFormat(tool_parser="hermes")
        with pytest.raises(RequestError, match="has no chat template"):
            self.styler.render(tiny(), chat(HELLO))

    @pytest.mark.parametrize(
        ("template", "parser"),
        [
            ("{{ tools }}<tool_call>", "hermes"),
            ("{{ tools }}<tool_call><function=<parameter=", "qwen3_coder"),
            ("{{ tools }}<tool_call><function=", None),
            ('{{ tools }}<|start_header_id|>{"name": "f", "parameters": {}}', "llama3_json"),
            ("{{ tools }}<|start_header_id|>", None),
            ("{{ tools }}", None),
            # Described in the prompt.
            ("<tool_call>", "hermes"),
            ("{{ messages }}", "hermes"),
        ],
    )
    def test_the_tool_parser_is_read_off_the_template(self, template: str, parser: str | None) -> None:
        assert self.styler.answer_format(tiny(template=template)).tool_parser == parser

    def test_reasoning_is_read_off_the_template(self) -> None:
        switch = "{% if enable_thinking %}<think>\n{% else %}<think>\n</think>\n{% endif %}"
        assert self.styler.answer_format(tiny(template=switch)) == AnswerFormat(THINK, True, False, "hermes")
        always = "{# </think> #}<think>\n"
        styler = find_styler(checkpoint("mistral"), template_defaults={"enable_thinking": False})
        assert styler.answer_format(tiny(template=always)) == AnswerFormat(THINK, True, True, "hermes")

    def test_the_operator_s_choice_of_parsers(self) -> None:
        tokenizer = tiny(template="{{ tools }}<tool_call>")
        styler = find_styler(checkpoint("mistral"), tool_parser="llama3_json", reasoning_parser="deepseek_r1")
        assert styler.answer_format(tokenizer) == AnswerFormat(THINK, False, True, "llama3_json")
        auto = find_styler(checkpoint("mistral"), tool_parser="auto", reasoning_parser="auto")
        assert auto.answer_format(tokenizer) == AnswerFormat(tool_parser="hermes")

    def test_a_token_ends_turns_only_where_the_template_writes_it(self) -> None:
        assert self.styler.stop_ids(tiny("<|im_end|>", template="x")) == ()
        tokenizer = tiny("<|im_end|>", "<end_of_turn>", template="x<end_of_turn>")
        assert self.styler.stop_ids(tokenizer) == (tokenizer.token_id("<end_of_turn>"),)


def test_an_error_names_the_variables_if_the_chat_alone_renders() -> None:
    styler = find_styler(checkpoint("other"))
    tokenizer = tiny(
        template="{{ 1 + (depth or 0) }}{% if messages[0].content == 'x' %}{{ raise_exception('No.') }}{% endif %}"
    )
    for content, param in (("a", "chat_template_kwargs"), ("x", "messages")):
        with pytest.raises(RequestError) as error:
            styler.render(
                tokenizer, chat([{"role": "user", "content": content}], chat_template_kwargs={"depth": "deep"})
            )
        assert error.value.param == param
