# SPDX-License-Identifier: Apache-2.0
"""What the person at the terminal sees while the stack starts and runs."""

import json
import shlex
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

_MARKS = {"ready": "[green]ready[/]", "loading": "[yellow]loading[/]", "failed": "[red]failed[/]"}


class Display:
    """Progress of the start: one live line on a terminal, elsewhere a plain line whenever something changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = Status("", console=console) if console.is_terminal else None
        self._shown = ""

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def show(self, states: Mapping[str, str], elapsed_s: float) -> None:
        """States of the models by name, and the seconds since the start."""
        parts = ", ".join(f"{name} {_MARKS.get(state, state)}" for name, state in states.items()) or "starting"
        if self._status:
            self._status.update(f"{elapsed_s:4.0f} s  {parts}")
        elif parts != self._shown:
            self._console.print(f"{elapsed_s:4.0f} s  {parts}", soft_wrap=True)
        self._shown = parts


def curl(url: str, model: str, with_key: bool) -> str:
    """A chat request for the shell."""
    body = {"model": model, "messages": [{"role": "user", "content": "Please name the capital of France."}]}
    words = ["curl", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    if url.startswith("https:"):
        words.insert(1, "--insecure")
    command = " ".join(shlex.quote(word) for word in [*words, "-d", json.dumps(body)])
    return f'{command} -H "Authorization: Bearer $API_KEY"' if with_key else command
