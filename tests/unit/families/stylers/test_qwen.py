# SPDX-License-Identifier: Apache-2.0
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat
from tests.support.answers import THINK
from tests.support.chats import checkpoint, with_template


def test_qwen2_5_has_no_reasoning(qwen3: ChatTokenizer) -> None:
    plain = with_template(qwen3, "{{ messages[0].content }}{% if tools %}<tool_call>{% endif %}")
    styler = find_styler(checkpoint("qwen2"))
    assert styler.answer_format(plain) == AnswerFormat(tool_parser="hermes")
    # QwQ and R1 distillations share the model type.
    assert styler.answer_format(qwen3) == AnswerFormat(THINK, False, True, "hermes")
