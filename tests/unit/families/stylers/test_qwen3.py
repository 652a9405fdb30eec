# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest

from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat
from tests.support.answers import THINK
from tests.support.chats import HELLO, POSTCODE, WEATHER, call, chat, checkpoint, dialogue, with_template


class TestQwen3:
    styler = find_styler(checkpoint("qwen3"))

    def render(self, tokenizer: ChatTokenizer, messages: Any, **fields: Any) -> str:
        return self.styler.render(tokenizer, chat(messages, **fields))

    def test_token_counts_of_the_published_dialogue(self, qwen3: ChatTokenizer) -> None:
        on = self.render(qwen3, HELLO)
        off = self.render(qwen3, HELLO, chat_template_kwargs={"enable_thinking": False})
        assert on == "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
        assert off == on + "<think>\n\n</think>\n\n"
        assert [len(qwen3.encode(text, add_special_tokens=False)) for text in (on, off)] == [13, 17]

    def test_answers(self, qwen3: ChatTokenizer) -> None:
        assert self.styler.answer_format(qwen3) == AnswerFormat(THINK, False, True, "hermes")
        assert self.styler.stop_ids(qwen3) == (151645,)

    def test_thinking_off_by_the_server_s_default(self, qwen3: ChatTokenizer) -> None:
        styler = find_styler(checkpoint("qwen3"), template_defaults={"enable_thinking": False})
        assert styler.render(qwen3, chat(HELLO)).endswith("<think>\n\n</think>\n\n")
        assert styler.render(qwen3, chat(HELLO, enable_thinking=True)).endswith("<|im_start|>assistant\n")
        assert styler.answer_format(qwen3) == AnswerFormat(THINK, False, False, "hermes")

    def test_a_model_that_always_thinks(self, qwen3: ChatTokenizer) -> None:
        # As in the Thinking-2507 checkpoints: no switch, and the tag is part of the prompt.
        template = (qwen3.template or "").replace(
            "{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}"
        )
        template = template.replace("enable_thinking is defined and enable_thinking is false", "false")
        thinker = with_template(qwen3, template)
        assert self.render(thinker, HELLO).endswith("<|im_start|>assistant\n<think>\n")
        assert self.styler.answer_format(thinker) == AnswerFormat(THINK, True, True, "hermes")
        with pytest.raises(RequestError, match="always thinks") as error:
            self.render(thinker, HELLO, enable_thinking=False)
        assert error.value.param == "enable_thinking"

    def test_tool_results_render_as_the_template_renders_them(self, qwen3: ChatTokenizer) -> None:
        prompt = self.render(qwen3, dialogue(json.dumps), tools=[WEATHER, POSTCODE])
        assert prompt == qwen3._tokenizer.apply_chat_template(
            dialogue(lambda arguments: arguments), tools=[WEATHER, POSTCODE], tokenize=False, add_generation_prompt=True
        )
        assert (
            '{"name": "get_current_weather", "arguments": {"location": "Boston, MA", "unit": "fahrenheit"}}' in prompt
        )
        assert "某工具" in prompt
        assert prompt.count("<tool_response>") == 2

    def test_cjk_arguments_stay_readable(self, qwen3: ChatTokenizer) -> None:
        history = [*HELLO, {"role": "assistant", "tool_calls": [call("c", "f", '{"城市":"北京"}')]}]
        assert '"arguments": {"城市": "北京"}}' in self.render(qwen3, [*history, *HELLO])

    def test_tool_choice_none_hides_the_tools(self, qwen3: ChatTokenizer) -> None:
        assert self.render(qwen3, HELLO, tools=[WEATHER], tool_choice="none") == self.render(qwen3, HELLO)

    @pytest.mark.parametrize(
        "answer",
        [{"content": "<think>\nhm\n</think>\n\nI am Qwen."}, {"content": "I am Qwen.", "reasoning_content": "hm"}],
    )
    def test_reasoning_of_earlier_turns_is_dropped(self, qwen3: ChatTokenizer, answer: dict[str, str]) -> None:
        prompt = self.render(qwen3, [*HELLO, {"role": "assistant", **answer}, *HELLO])
        assert "<|im_start|>assistant\nI am Qwen.<|im_end|>" in prompt
        assert "hm" not in prompt

    def test_reasoning_of_the_turn_in_progress_is_kept(self, qwen3: ChatTokenizer) -> None:
        messages = dialogue(json.dumps)
        messages[1]["reasoning"] = "look both up"
        assert "<think>\nlook both up\n</think>\n\n<tool_call>" in self.render(qwen3, messages, tools=[POSTCODE])

    def test_continuing_the_last_message(self, qwen3: ChatTokenizer) -> None:
        messages = [*HELLO, {"role": "assistant", "content": "我是"}]
        assert self.render(qwen3, messages, continue_final_message=True).endswith("\n我是")
