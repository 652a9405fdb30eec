# SPDX-License-Identifier: Apache-2.0
"""`triton-chat doctor`: check everything that a start needs, without starting anything."""

import os
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console

from scripts.launcher.options import LaunchOptions, parse_options
from scripts.shared.findings import Finding, rendered

_ABOUT = """Check the machine before a start of `triton-chat serve` with the same arguments, and suggest fixes.
The exit status is 1 if something would stop the start.

  triton-chat doctor /models/Qwen3-0.6B --port 8102"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings as they come; returns 1 if one of them would stop a start."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, "doctor", _ABOUT)
    console = Console(highlight=False, soft_wrap=True)
    found = []
    for finding in findings(options):
        found.append(finding)
        console.print(rendered(finding))
    errors = sum(finding.verdict == "error" for finding in found)
    console.print()
    console.print(f"{errors} of these would stop a start." if errors else "Nothing here would stop a start.")
    return 1 if errors else 0


def findings(options: LaunchOptions) -> Iterator[Finding]:
    """All findings for one command line of `serve`."""
    # What looks takes a second to import, which --help need not wait for.
    from scripts.cli.machine import machine_findings
    from scripts.cli.model_files import model_findings
    from scripts.cli.several_findings import several_findings
    from scripts.cli.software import software_findings

    yield from software_findings(options, os.environ)
    yield from machine_findings(options, os.environ)
    yield from (several_findings if options.several else model_findings)(options, os.environ)
