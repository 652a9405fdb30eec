# SPDX-License-Identifier: Apache-2.0
from families.detection import find_styler
from families.parsers import AnswerFormat
from tests.support.chats import checkpoint, tiny


def test_llama3() -> None:
    styler = find_styler(checkpoint("llama"), "llama3")
    tokenizer = tiny(
        "<|eot_id|>", "<|eom_id|>", template='<|start_header_id|>{{ messages[0].content }}{{ tools }}"parameters"'
    )
    assert styler.answer_format(tokenizer) == AnswerFormat(tool_parser="llama3_json")
    assert styler.stop_ids(tokenizer) == (tokenizer.token_id("<|eot_id|>"), tokenizer.token_id("<|eom_id|>"))
    # Llama 3.0 has no tools.
    assert styler.answer_format(tiny(template="{{ messages[0].content }}")).tool_parser == "hermes"
