# SPDX-License-Identifier: Apache-2.0
"""The launcher's terminal error, and what is wrong with a file of options."""

from scripts.shared.errors import CommandError


class LaunchError(CommandError):
    """The stack cannot start or keep running."""


def yaml_problem(error: Exception) -> str:
    """Return where a file is not YAML, and why: PyYAML's own text takes four lines and names no file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}"
