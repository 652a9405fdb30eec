# SPDX-License-Identifier: Apache-2.0
"""Qwen2 and Qwen2.5: ChatML with Hermes tool calls. QwQ, of the same model type, is told by its template's tags."""

from preprocessing.stylers import chatml
from preprocessing.stylers.base import Styler
from preprocessing.tokenizer import ChatTokenizer


class QwenStyler(Styler):
    name = "qwen"
    turn_ends = (chatml.TURN_END,)

    def tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        return "hermes"
