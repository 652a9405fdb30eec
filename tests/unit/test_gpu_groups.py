# SPDX-License-Identifier: Apache-2.0
"""The groups of `make test-gpu`, which itself needs a GPU: their tests exist, and results are read right."""

from pathlib import Path

import pytest

from tests.gpu.__main__ import GROUPS, ROOT, Result, read_result


@pytest.mark.parametrize("name", GROUPS)
def test_the_tests_of_a_group_exist(name: str) -> None:
    for one in GROUPS[name][1]:
        path, _, function = one.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {function or 'test_'}" in text, one


def test_results_are_read(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10" time="12.5"></testsuite></testsuites>'
    )
    assert read_result(report) == Result(passed=4, failed=3, skipped=3, seconds=12.5)
    assert read_result(report).row == "4 | 3 | 3 | 12"
