# SPDX-License-Identifier: Apache-2.0
"""What `triton-chat doctor` finds."""

from dataclasses import dataclass
from typing import Literal

from rich.markup import escape

Verdict = Literal["ok", "warning", "error"]
# How each is shown.
STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """subject: what was looked at. verdict: `error` would stop a start. text: what it is, and how to mend it."""

    subject: str
    verdict: Verdict
    text: str


def shown(finding: Finding) -> str:
    """Its line on a terminal, with rich's markup."""
    return f"[{STYLES[finding.verdict]}]{finding.verdict:<8}[/] {finding.subject:<15}{escape(finding.text)}"


def judged(subject: str, problem: str | None, fine: str, verdict: Verdict = "error") -> Finding:
    """`fine` where there is no problem, else the problem with its verdict."""
    return Finding(subject, verdict, problem) if problem else Finding(subject, "ok", fine)
