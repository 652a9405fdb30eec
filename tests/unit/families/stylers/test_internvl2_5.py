# SPDX-License-Identifier: Apache-2.0
import json

from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat
from families.stylers.internvl2_5 import SYSTEM_PROMPT
from tests.support.chats import HELLO, chat, checkpoint, dialogue, tiny


class TestInternVL:
    styler = find_styler(checkpoint("internvl_chat"))

    def test_the_family_s_own_system_prompt(self) -> None:
        tokenizer = tiny("<|im_start|>", "<|im_end|>", template="{{ raise_exception('the language model\\'s') }}")
        assert self.styler.render(tokenizer, chat(HELLO)) == (
            f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
            "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
        )
        assert self.styler.answer_format(tokenizer) == AnswerFormat(tool_parser="hermes")
        assert self.styler.stop_ids(tokenizer) == (tokenizer.token_id("<|im_end|>"),)

    def test_a_language_model_with_a_token_for_it_may_reason(self) -> None:
        # InternVL3.5, if the system prompt says so.
        tokenizer = tiny("<|im_start|>", "<|im_end|>", "<think>", "</think>")
        assert self.styler.answer_format(tokenizer) == AnswerFormat("think", False, True, "hermes")

    def test_bos_where_the_tokenizer_writes_one(self) -> None:
        tokenizer = tiny("<|im_start|>", "<|im_end|>", bos="<s>")
        assert self.styler.render(tokenizer, chat(HELLO)).startswith("<s><|im_start|>system\n")

    def test_a_system_message_replaces_it(self) -> None:
        messages = [{"role": "system", "content": "S"}, *HELLO, {"role": "assistant", "content": "A"}]
        prompt = self.styler.render(tiny("<|im_end|>"), chat(messages, continue_final_message=True))
        assert prompt == (
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\nA"
        )

    def test_other_templates_write_everything_themselves(self) -> None:
        own = "<s>{{ messages[0].content }}"
        with_own = ChatTokenizer(tiny(bos="<s>")._tokenizer, own)
        assert self.styler.render(with_own, chat(HELLO)) == "<s>你好，你是谁？"
        assert self.styler.render(tiny(bos="<s>"), chat(HELLO, chat_template=own)) == "<s>你好，你是谁？"

    def test_tool_history(self) -> None:
        prompt = self.styler.render(tiny(), chat(dialogue(json.dumps)))
        assert "<|im_start|>assistant\n<tool_call>\n{" in prompt
        assert prompt.endswith("59.0\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
