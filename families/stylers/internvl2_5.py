# SPDX-License-Identifier: Apache-2.0
"""InternVL2.5, on either of its language models (Qwen2.5 or InternLM2): ChatML with a system prompt of its own.

The checkpoint's chat template is that of the language model, with another system prompt, so it is not used.
"""

from typing import Any

from common.chat.request import ChatRequest
from common.tokenizer import ChatTokenizer
from families.stylers import chatml
from families.stylers.base import Styler

# `system_message` of the "internvl2_5" conversation in the family's published conversation.py.
SYSTEM_PROMPT = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


class InternVLStyler(Styler):
    """InternVL2.5 in ChatML, without reasoning."""

    name = "internvl2_5"
    turn_ends = (chatml.TURN_END,)

    def render(self, tokenizer: ChatTokenizer, chat: ChatRequest) -> str:
        if chat.chat_template is not None or tokenizer.replaces_template:
            return super().render(tokenizer, chat)  # Such templates write BOS.
        # The family was trained with the tokenizer's BOS: InternLM2's <s>; Qwen2.5's tokenizer adds none.
        return tokenizer.bos_text() + super().render(tokenizer, chat)

    def template_kwargs(self, chat: ChatRequest) -> dict[str, Any]:
        return {"default_system": SYSTEM_PROMPT, **super().template_kwargs(chat)}

    def template(self, tokenizer: ChatTokenizer) -> str | None:
        return chatml.TEMPLATE

    def reasoning(self, tokenizer: ChatTokenizer) -> str | None:
        # InternVL3.5 reasons if its system prompt says so; its language model, Qwen3, has a token for the tag.
        return None if tokenizer.token_id("<think>") is None else "think"
