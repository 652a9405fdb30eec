# SPDX-License-Identifier: Apache-2.0
"""LangChain's standard suite and LlamaIndex agents, in their own environment, against a scripted stack."""

import pytest

from tests.support.agent_rules import LANGCHAIN, LLAMAINDEX
from tests.support.agents import run_agents

# The suite's tests of what a text model behind the OpenAI API does not have, and its benchmark of recorded answers.
LANGCHAIN_SKIPS = {
    "test_pdf_inputs",
    "test_audio_inputs",
    "test_image_inputs",
    "test_image_tool_message",
    "test_pdf_tool_message",
    "test_anthropic_inputs",
    "test_stream_time",
}

needs_guides = pytest.mark.python_engine("their forced tool calls and schemas need guides")


@needs_guides
def test_langchains_standard_suite(scripted_qwen3, tmp_path):
    scripted_qwen3.play(*LANGCHAIN)
    outcome = run_agents("test_langchain_standard.py", scripted_qwen3.stack.url, tmp_path / "report.xml")
    assert outcome.returncode == 0, outcome.output[-8000:]
    # Only the tests above are skipped, and the suite was not empty.
    assert outcome.skipped <= LANGCHAIN_SKIPS
    assert len(outcome.passed) >= 40


@needs_guides
def test_llamaindex_agents(scripted_qwen3, tmp_path):
    scripted_qwen3.play(*LLAMAINDEX)
    outcome = run_agents("test_llamaindex.py", scripted_qwen3.stack.url, tmp_path / "report.xml")
    assert outcome.returncode == 0, outcome.output[-8000:]
    assert not outcome.skipped
    assert len(outcome.passed) >= 7
