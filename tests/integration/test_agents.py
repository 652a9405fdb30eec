# SPDX-License-Identifier: Apache-2.0
"""LangChain's standard suite and LlamaIndex agents, in their own environment, against a scripted stack."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.agent_rules import LANGCHAIN, LLAMAINDEX
from tests.support.scripted import ROOT

PYTHON = ROOT / ".cache" / "agents-venv" / "bin" / "python"
LIMIT_S = 240.0
NOT_PASSED = ("skipped", "failure", "error")  # elements of a JUnit test case

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results by test name (parameters in brackets)."""

    returncode: int
    output: str
    passed: set[str]
    skipped: set[str]


def run_agents(file: str, url: str, report: Path) -> Outcome:
    """Run a file of tests/agents with the agents' own interpreter."""
    if not PYTHON.is_file():
        pytest.fail(f"no {PYTHON}: run `make setup-agents`")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    # Nothing but the server is to be talked to, whatever proxies and tracing this machine has set.
    environment |= {"TRITON_CHAT_TEST_URL": url, "NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false"}
    command = [PYTHON, "-m", "pytest", f"tests/agents/{file}", f"--junitxml={report}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S
    )
    assert report.is_file(), done.stdout[-8000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = {case.attrib["name"] for case in cases if case.find("skipped") is not None}
    passed = {case.attrib["name"] for case in cases if not any(case.find(kind) is not None for kind in NOT_PASSED)}
    return Outcome(done.returncode, done.stdout, passed, skipped)


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
