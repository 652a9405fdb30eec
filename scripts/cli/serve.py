# SPDX-License-Identifier: Apache-2.0
"""`triton-chat serve`: start tritonserver and the OpenAI frontend, print their addresses, stop them together."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from scripts.cache import REPOSITORY
from scripts.launcher import LaunchError
from scripts.launcher.options import parse_options

if TYPE_CHECKING:
    from scripts.launcher import Stack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; returns 0. Raises LaunchError if the start fails or a part keeps dying."""
    line = sys.argv[1:] if arguments is None else arguments
    # --help and a wrong line end here, before the second that the import of the stack takes.
    options = parse_options(line)
    from scripts.launcher import Stack

    console = Console(stderr=True, highlight=False)
    stack = Stack(options, console=console)
    _stop_on_signals(stack)
    _run(stack, console)
    return 0


def _run(stack: "Stack", console: Console) -> None:
    planned = [] if stack.several is None else stack.several.planned
    for note in dict.fromkeys(
        [*stack.options.notes, *stack.ports.notes, *(note for one in planned for note in one.spec.options.notes)]
    ):
        console.print(f"note: {escape(note)}", soft_wrap=True)
    for what in _checkpoints(stack):
        console.print(f"serving {escape(what)} with {stack.server.binary}", soft_wrap=True)
    try:
        with stack:
            _announce(stack, console)
            stack.wait()
            console.print("stopping; press Ctrl-C again to end everything at once")
    except LaunchError as error:
        error.add_note(f"logs: {stack.options.log_dir}")
        raise


def _checkpoints(stack: "Stack") -> list[str]:
    if stack.several is None:
        return [str(stack.model.checkpoint.path)]
    return [f"{one.name} ({one.model.checkpoint.path})" for one in stack.several.planned]


def _stop_on_signals(stack: "Stack") -> None:
    def on_signal(number: int, frame: FrameType | None) -> None:
        if stack.stopping.is_set():
            stack.hurry.set()
        stack.stopping.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    # Under nohup SIGHUP is ignored, and stays so.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, on_signal)


def _announce(stack: "Stack", console: Console) -> None:
    from scripts.launcher.display import curl
    from scripts.launcher.readiness import served_versions

    if stack.stopping.is_set():
        return
    failures = {} if stack.several is None else stack.several.failures
    names, kind = stack.model_names, stack.model.kind
    if stack.several is not None:
        serving = [one for one in stack.several.planned if one.name not in failures]
        names, kind = tuple(name for one in serving for name in one.spec.names), serving[0].model.kind
    console.print(f"[green]ready:[/] {stack.url}/v1 serves {', '.join(names)}", soft_wrap=True)
    for name, reason in failures.items():
        console.print(f"[bold red]not served:[/] {escape(f'{name}: {reason}')}", soft_wrap=True)
    addresses = {
        "API": f"{stack.url}/v1",
        "chat page": stack.ui_url or "not started; --ui starts it",
        "API docs": f"{stack.url}/openapi.json",
        "Triton": f"gRPC {stack.grpc_url}, HTTP {stack.triton_http_url}, metrics {stack.metrics_url}",
        "versions": str(served_versions(stack.url)),
        "logs": str(stack.options.log_dir),
    }
    if (guide := REPOSITORY / "docs" / "index.md").is_file():
        addresses["docs"] = str(guide)
    for what, where in addresses.items():
        console.print(f"  {what:<11}{escape(where)}", soft_wrap=True)
    for warning in stack.warnings:
        console.print(f"[bold red]warning:[/] {escape(warning)}", soft_wrap=True)
    example = curl(stack.url, names[0], stack.needs_key, kind)
    console.print("\nTry:\n" + escape(example), soft_wrap=True)
