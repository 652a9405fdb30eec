# SPDX-License-Identifier: Apache-2.0
"""Run tests of tests/agents and tests/node in environments of their own against a server."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.scripted import ROOT

PYTHON = ROOT / ".cache" / "agents-venv" / "bin" / "python"
NODE_PACKAGES = ROOT / ".cache" / "node" / "node_modules"
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
    command = [PYTHON, "-m", "pytest", f"tests/agents/{file}", f"--junitxml={report}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=_environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    assert report.is_file(), done.stdout[-8000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = {case.attrib["name"] for case in cases if case.find("skipped") is not None}
    passed = {case.attrib["name"] for case in cases if not any(case.find(kind) is not None for kind in NOT_PASSED)}
    return Outcome(done.returncode, done.stdout, passed, skipped)


def run_node_clients(url: str, folder: Path) -> None:
    """Run the tests of tests/node, which must pass. folder: empty."""
    if not NODE_PACKAGES.is_dir():
        pytest.fail(f"no {NODE_PACKAGES}: run `make setup-node`")
    # Node.js looks for packages beside the file.
    (folder / "node_modules").symlink_to(NODE_PACKAGES)
    file = shutil.copy(ROOT / "tests" / "node" / "clients.test.mjs", folder)
    command = ["node", "--test", "--test-reporter=tap", file]
    done = subprocess.run(command, env=_environment(url), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "# pass 12\n" in done.stdout and "# skipped 0\n" in done.stdout


def _environment(url: str) -> dict[str, str]:
    """The environment of the tests: nothing but the server is to be talked to, whatever this machine has set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "PYTHON", "OPENAI", "ANTHROPIC"))
    }
    local = {"NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    return kept | {"TRITON_CHAT_TEST_URL": url} | local
