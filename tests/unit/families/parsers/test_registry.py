# SPDX-License-Identifier: Apache-2.0
import pytest

from families.parsers import AnswerFormat, find_tool_parser


def test_unknown_parsers_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'pythonic'; known: gemma, hermes, llama3_json"):
        find_tool_parser("pythonic")
    with pytest.raises(ValueError, match="known"):
        AnswerFormat(tool_parser="pythonic")
