# SPDX-License-Identifier: Apache-2.0
"""Qwen3: Qwen with reasoning, switched by `enable_thinking` (on unless the server or the request turns it off).

Its template drops the reasoning of earlier turns and keeps that of the current turn, a chain of tool calls.
"""

from families.stylers.qwen import QwenStyler


class Qwen3Styler(QwenStyler):
    """Qwen3, which reasons in `<think>` tags."""

    name = "qwen3"
