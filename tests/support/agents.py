# SPDX-License-Identifier: Apache-2.0
"""Run tests of tests/agents in the agents' own environment against a server."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.scripted import ROOT

PYTHON = ROOT / ".cache" / "agents-venv" / "bin" / "python"
LIMIT_S = 240.0
NOT_PASSED = ("skipped", "failure", "error")  # elements of a JUnit test case


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
