# SPDX-License-Identifier: Apache-2.0
"""Any other model: its own chat template, or ChatML if it has none and the vocabulary has ChatML's tokens."""

from common.tokenizer import ChatTokenizer
from families.stylers import chatml
from families.stylers.base import Styler


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
        source = self.source(tokenizer)
        ids = (tokenizer.token_id(token) for token in self.turn_ends if token in source)
        return tuple(item for item in ids if item is not None)
