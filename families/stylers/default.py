# SPDX-License-Identifier: Apache-2.0
"""Any other model: its own chat template, or ChatML if it has none and the vocabulary has ChatML's tokens."""

from common.tokenizer import ChatTokenizer
from families.stylers import chatml
from families.stylers.base import Styler
from families.stylers.llama3 import HEADER


class DefaultStyler(Styler):
    """Models of no known family; everything is inferred from the chat template."""

    name = "default"
    turn_ends = (chatml.TURN_END, "<|eot_id|>", "<end_of_turn>")

    def template(self, tokenizer: ChatTokenizer) -> str | None:
        if tokenizer.template is None and tokenizer.token_id("<|im_start|>") is not None:
            return chatml.TEMPLATE
        return None

    def stop_ids(self, tokenizer: ChatTokenizer) -> tuple[int, ...]:
        # A token of the vocabulary may be unused: it ends turns only if the template writes it.
        source = self.template(tokenizer) or tokenizer.template or ""
        ids = (tokenizer.token_id(token) for token in self.turn_ends if token in source)
        return tuple(item for item in ids if item is not None)

    def tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        template = tokenizer.template or ""
        # "<function=" marks the XML calls of Qwen3-Coder, which have the same outer tag.
        if "<tool_call>" in template and "<function=" not in template:
            return "hermes"
        return "llama3_json" if HEADER in template else None
