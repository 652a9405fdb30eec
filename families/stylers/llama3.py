# SPDX-License-Identifier: Apache-2.0
"""Llama 3.x: header tokens around roles, tool calls as bare JSON."""

from families.stylers.base import Styler

HEADER = "<|start_header_id|>"


class Llama3Styler(Styler):
    """Llama 3 to 3.3."""

    name = "llama3"
    turn_ends = ("<|eot_id|>", "<|eom_id|>")
