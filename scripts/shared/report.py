# SPDX-License-Identifier: Apache-2.0
"""Print an error that ends a command."""

from scripts.shared.errors import CommandError


def report(error: CommandError) -> None:
    """Print the log lines, the message and the notes of an error to standard error."""
    # Here, not above: commands such as `triton-chat frontend` run without rich.
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    for line in error.log:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
    for note in getattr(error, "__notes__", ()):
        console.print(note, soft_wrap=True, markup=False)
