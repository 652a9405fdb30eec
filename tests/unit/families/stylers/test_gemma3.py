# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest

from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat
from tests.support.chats import HELLO, POSTCODE, WEATHER, call, chat, checkpoint, dialogue


class TestGemma3:
    styler = find_styler(checkpoint("gemma3"))

    def render(self, tokenizer: ChatTokenizer, messages: Any, **fields: Any) -> str:
        return self.styler.render(tokenizer, chat(messages, **fields))

    def test_token_count_of_the_published_dialogue(self, gemma3: ChatTokenizer) -> None:
        prompt = self.render(gemma3, HELLO)
        assert prompt == "<bos><start_of_turn>user\n你好，你是谁？<end_of_turn>\n<start_of_turn>model\n"
        ids = gemma3.encode(prompt, add_special_tokens=False)
        assert len(ids) == 14
        assert ids.count(2) == 1  # BOS

    def test_answers(self, gemma3: ChatTokenizer) -> None:
        assert self.styler.answer_format(gemma3) == AnswerFormat(tool_parser="gemma")
        assert self.styler.stop_ids(gemma3) == (106,)

    def test_system_text_opens_the_first_user_turn(self, gemma3: ChatTokenizer) -> None:
        messages = [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, *HELLO]
        assert self.render(gemma3, messages).startswith(
            "<bos><start_of_turn>user\nA\n\nB\n\n你好，你是谁？<end_of_turn>\n"
        )

    @pytest.mark.parametrize(
        ("roles", "message"),
        [
            (["user", "user"], "roles must alternate"),
            (["assistant", "user"], "roles must alternate"),
            (["user", "system", "user"], r"messages\[1\].role may be system only at the start"),
            (["system"], "must have a user message"),
        ],
    )
    def test_turns_that_the_family_cannot_express(self, gemma3: ChatTokenizer, roles: list[str], message: str) -> None:
        with pytest.raises(RequestError, match=message) as error:
            self.render(gemma3, [{"role": role, "content": "x"} for role in roles])
        assert error.value.param == "messages"

    def test_tools_are_described_in_the_first_turn(self, gemma3: ChatTokenizer) -> None:
        messages = [{"role": "system", "content": "Be brief."}, *HELLO]
        prompt = self.render(gemma3, messages, tools=[WEATHER, POSTCODE])
        assert prompt.startswith("<bos><start_of_turn>user\nBe brief.\n\nYou have access to the functions below.")
        assert json.dumps([WEATHER["function"], POSTCODE["function"]], ensure_ascii=False) + "\n\n你好" in prompt
        assert "array" not in self.render(gemma3, messages, tools=[POSTCODE], parallel_tool_calls=False)

    def test_calls_and_results_are_turns_of_text(self, gemma3: ChatTokenizer) -> None:
        after = {"role": "user", "content": "Well?"}
        prompt = self.render(gemma3, [*dialogue(json.dumps), after])
        assert prompt.endswith(
            "<start_of_turn>model\n"
            '[{"name": "get_postcode", "parameters": {"location": "Boston"}}, '
            '{"name": "get_current_weather", "parameters": {"location": "Boston, MA", "unit": "fahrenheit"}}]'
            "<end_of_turn>\n<start_of_turn>user\n"
            "Result of get_postcode:\n02138\n\nResult of get_current_weather:\n59.0\n\nWell?<end_of_turn>\n"
            "<start_of_turn>model\n"
        )

    def test_one_call_is_one_object_after_its_text(self, gemma3: ChatTokenizer) -> None:
        answer = {"role": "assistant", "content": "Let me look.", "tool_calls": [call("c", "f", '{"城市": "北京"}')]}
        prompt = self.render(gemma3, [*HELLO, answer, {"role": "tool", "content": "晴", "name": "g"}])
        assert 'Let me look.\n\n{"name": "f", "parameters": {"城市": "北京"}}<end_of_turn>' in prompt
        assert "Result of g:\n晴<end_of_turn>" in prompt
