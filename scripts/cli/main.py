# SPDX-License-Identifier: Apache-2.0
"""`triton-chat COMMAND ...`: finds the command and hands it the rest of the line."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from frontend import __version__


@dataclass(frozen=True, slots=True)
class Command:
    """module: has `main(arguments) -> int`; imported when it is called, as some take seconds. about: for the list."""

    module: str
    about: str


COMMANDS = {
    "serve": Command(
        "scripts.cli.serve", "serve a model: tritonserver and the OpenAI API, started and stopped together"
    ),
    "prepare": Command(
        "scripts.cli.prepare", "fetch, convert and split a model, so that `serve` need not; prints its folder"
    ),
    "build": Command("scripts.cli.build", "build engines for NVIDIA GPUs: a TensorRT-LLM engine, the vision tower"),
    "chat": Command("scripts.cli.chat", "talk to a server in the terminal, with images"),
    "bench": Command("scripts.bench.__main__", "measure this stack beside `vllm serve`"),
    "doctor": Command("scripts.cli.doctor", "look for what would stop a start, and say how to mend it"),
}
USAGE = """usage: triton-chat COMMAND ...

An OpenAI API for text and vision-language models on NVIDIA Triton Inference Server.

{commands}

First steps:
  triton-chat prepare                          fetches tritonserver and the small default model
  triton-chat serve                            serves it at http://127.0.0.1:9997/v1
  triton-chat chat                             from another terminal
  triton-chat serve /models/Qwen3-0.6B --port 8102 --max-model-len 16k

`triton-chat COMMAND --help` tells more; `triton-chat --version` the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is the command's, 2 for a line that names none."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    if line in (["-h"], ["--help"], ["help"]):
        print(usage())
        return 0
    if line == ["--version"]:
        print(f"triton-chat {__version__}")
        return 0
    if not line or line[0] not in COMMANDS:
        print(_complaint(line), file=sys.stderr)
        return 2
    try:
        module = import_module(COMMANDS[line[0]].module)
    except ModuleNotFoundError as error:
        mend = f"pip install {error.name}, or `make setup`"
        print(f"error: `triton-chat {line[0]}` needs the package {error.name}: {mend}", file=sys.stderr)
        return 1
    return int(module.main(line[1:]) or 0)


def usage() -> str:
    """What `triton-chat --help` prints."""
    commands = "\n".join(f"  {name:<9}{command.about}" for name, command in COMMANDS.items())
    return USAGE.format(commands=commands)


def _complaint(line: Sequence[str]) -> str:
    if not line:
        return usage()
    close = get_close_matches(line[0], COMMANDS, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    if not line[0].startswith("-") and not close:
        guess = f" To serve a model: triton-chat serve {' '.join(line)}"
    return f"error: unknown command '{line[0]}'; known: {', '.join(COMMANDS)}.{guess}"
