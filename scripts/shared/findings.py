# SPDX-License-Identifier: Apache-2.0
"""Findings of `triton-chat doctor` and of the checks before a build."""

from dataclasses import dataclass
from typing import Literal

from rich.markup import escape

Verdict = Literal["ok", "warning", "error"]
# The style of each on a terminal.
STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. subject: its name. verdict: `error` stops a start. text: the state and the fix."""

    subject: str
    verdict: Verdict
    text: str


def rendered(finding: Finding) -> str:
    """The finding as a line for a terminal, with rich's markup."""
    return f"[{STYLES[finding.verdict]}]{finding.verdict:<8}[/] {finding.subject:<15}{escape(finding.text)}"


def check_result(subject: str, problem: str | None, fine: str, verdict: Verdict = "error") -> Finding:
    """Make a finding: the problem with its verdict, or `fine` if there is no problem."""
    return Finding(subject, verdict, problem) if problem else Finding(subject, "ok", fine)
