# SPDX-License-Identifier: Apache-2.0
"""What the rules say of published chat templates is what was read from them by eye."""

import pytest

from families.formats import detect_formats
from tests.support.expected_formats import EXPECTED
from tests.support.templates import FOLDER, NAMES, published


@pytest.mark.skipif(not NAMES, reason=f"no chat templates in {FOLDER}")
def test_every_template_has_a_row() -> None:
    assert set(NAMES) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_formats_of_a_published_template(name: str) -> None:
    template = published(name)
    formats = detect_formats(template)
    family, reasoning, tools = EXPECTED[name]
    if tools == "generic":
        assert "tools" not in template, "the styler would not use the generic form"
        tools = None
    assert (formats.family, formats.reasoning, formats.tools) == (family, reasoning, tools)


@pytest.mark.parametrize(
    "template",
    [
        # MiniCPM3: calls in a fence of Python, between the tags of LFM2.
        "<|im_start|><|thought_start|>\n<|thought_end|>\n<|tool_call_start|>\n```python\nf(a=1)\n```\n<|tool_call_end|>{{ tools }}",
        # MiroThinker: calls in elements of its own, although the template also knows those of Qwen3.
        "<|im_start|><use_mcp_tool>\n<tool_name>f</tool_name>\n</use_mcp_tool> <tool_call> {{ tools }}",
        # Granite 20B: an opening tag of its own.
        "<function_call> {{ tools }}",
    ],
)
def test_calls_of_another_form_between_known_tags_are_not_known(template: str) -> None:
    assert detect_formats(template).tools is None
