# SPDX-License-Identifier: Apache-2.0
"""The progress of a start on the terminal, and a request to try."""

import json
import shlex
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.status import Status

from common.model_names import ENGINE
from common.served_model import CHAT, EMBEDDING

# The engines' own names.
ENGINE_TITLES = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "llmapi": "TensorRT-LLM's LLM API"}
_MARKS = {"ready": "[green]ready[/]", "loading": "[yellow]loading[/]", "failed": "[red]failed[/]"}

_EXAMPLES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    CHAT: ("chat/completions", {"messages": [{"role": "user", "content": "Please name the capital of France."}]}),
    EMBEDDING: ("embeddings", {"input": "The capital of France is Paris."}),
}


class Display:
    """Progress of the start: one live line on a terminal, otherwise a plain line whenever something changed.

    engine: what runs behind Triton's model `tensorrt_llm`. hidden: Triton models that the user need not know of.
    """

    def __init__(self, console: Console, engine: str = "", hidden: Collection[str] = ()) -> None:
        self._console = console
        self._labels = {ENGINE: f"engine ({ENGINE_TITLES.get(engine, engine)})"} if engine else {}
        self._hidden = hidden
        self._status = Status("", console=console) if console.is_terminal else None
        self._last = ""

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
        """Show the states of the models by name, and the seconds since the start."""
        shown = {name: state for name, state in states.items() if name not in self._hidden or state == "failed"}
        marked = [f"{self._labels.get(name, name)} {_MARKS.get(state, state)}" for name, state in shown.items()]
        parts = ", ".join(marked) or "starting"
        if self._status:
            self._status.update(f"{elapsed_s:4.0f} s  {parts}")
        elif parts != self._last:
            self._console.print(f"{elapsed_s:4.0f} s  {parts}", soft_wrap=True)
        self._last = parts


def curl(url: str, model: str, with_key: bool, kind: str = CHAT) -> str:
    """A request to a model of this kind as a shell command. with_key: it sends the key in $API_KEY."""
    path, asked = _EXAMPLES[kind]
    body = {"model": model, **asked}
    words = ["curl", f"{url}/v1/{path}", "-H", "Content-Type: application/json"]
    if url.startswith("https:"):
        words.insert(1, "--insecure")
    command = " ".join(shlex.quote(word) for word in [*words, "-d", json.dumps(body)])
    return f'{command} -H "Authorization: Bearer $API_KEY"' if with_key else command
