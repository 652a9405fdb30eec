# SPDX-License-Identifier: Apache-2.0
"""LangChain's standard suite, LlamaIndex agents and other clients, in environments of their own, against a scripted stack."""

import pytest

from tests.support.agent_rules import CLIENTS, LANGCHAIN, LLAMAINDEX
from tests.support.agents import run_agents, run_node_clients

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
@pytest.mark.parametrize(
    ("file", "rules", "tests"),
    [
        pytest.param("test_llamaindex.py", LLAMAINDEX, 7, id="LlamaIndex"),
        pytest.param("test_clients.py", CLIENTS, 18, id="Agents SDK, pydantic-ai, instructor, LiteLLM"),
    ],
)
def test_clients(scripted_qwen3, tmp_path, file, rules, tests):
    scripted_qwen3.play(*rules)
    outcome = run_agents(file, scripted_qwen3.stack.url, tmp_path / "report.xml")
    assert outcome.returncode == 0, outcome.output[-8000:]
    assert not outcome.skipped
    assert len(outcome.passed) >= tests


@needs_guides
def test_node_clients(scripted_qwen3, tmp_path):
    """The packages openai, @anthropic-ai/sdk and the AI SDK."""
    scripted_qwen3.play(*CLIENTS)
    run_node_clients(scripted_qwen3.stack.url, tmp_path)
