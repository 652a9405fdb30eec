# SPDX-License-Identifier: Apache-2.0
"""Compare lm-evaluation-harness's scores through a server with those of its own Hugging Face backend.

By hand for the default model: `python -m tests.support.evaluators URL NAME FOLDER DTYPE` prints the scores.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import ROOT

ENVIRONMENT = ROOT / ".cache" / "evaluators-venv"
LIMIT_S = 900.0
# Each backend that uses the server, and the one that computes the same itself.
PAIRS = {"ids": "hf", "text": "hf", "chat": "hf chat"}


def evaluations(url: str, name: str, folder: Path, dtype: str, scratch: Path, step: int = 1) -> dict[str, Any]:
    """Run tests/evaluators/scores.py; returns the answers and scores by backend.

    scratch: an empty folder. step: 1 for all items, 3 for every third length of text.
    """
    (packages,) = ENVIRONMENT.glob("lib/python3.*/site-packages")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    # Neither a hub nor proxies, and nothing is kept.
    environment |= {
        "PYTHONPATH": str(packages),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(scratch),
        "NO_PROXY": "127.0.0.1",
    }
    environment |= {"OPENAI_API_KEY": "unused"}
    program = ROOT / "tests" / "evaluators" / "scores.py"
    command = [sys.executable, program, url, name, folder, dtype, scratch, str(step)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-20000:]
    found: dict[str, Any] = json.loads((scratch / "found.json").read_text(encoding="utf-8"))
    return found


def check_evaluations(url: str, name: str, folder: Path, scratch: Path) -> None:
    """Check a server that computes in float32: log-likelihoods, choices, texts and scores are the same."""
    if not ENVIRONMENT.is_dir():
        pytest.fail(f"no {ENVIRONMENT}: run `make setup-evaluators`")
    found = evaluations(url, name, folder, "float32", scratch, step=3)
    for server, own in PAIRS.items():
        for task, answers in found[server]["answers"].items():
            expected = found[own]["answers"][task]
            if task == "texts":
                assert answers == expected, server
            else:
                assert _numbers(answers) == pytest.approx(_numbers(expected), abs=1e-2), (server, task)
            assert found[server]["scores"][task] == pytest.approx(found[own]["scores"][task], rel=1e-3), (server, task)


def _numbers(answers: list[Any]) -> list[float]:
    """The log-likelihoods, and whether each is of the likeliest text, as one list."""
    flat: list[float] = []
    for answer in answers:
        flat += _numbers(answer) if isinstance(answer, list) else [float(answer)]
    return flat


if __name__ == "__main__":
    for backend, results in evaluations(
        *sys.argv[1:3], Path(sys.argv[3]), sys.argv[4], Path(tempfile.mkdtemp())
    ).items():
        print(backend, results["scores"])
