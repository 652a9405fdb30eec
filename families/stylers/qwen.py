# SPDX-License-Identifier: Apache-2.0
"""Qwen2 and Qwen2.5: ChatML with Hermes tool calls. QwQ has the same model type and `<think>` in its template."""

from families.stylers import chatml
from families.stylers.base import Styler


class QwenStyler(Styler):
    """Qwen2, Qwen2.5 and QwQ."""

    name = "qwen"
    turn_ends = (chatml.TURN_END,)
