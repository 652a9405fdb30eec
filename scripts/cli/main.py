# SPDX-License-Identifier: Apache-2.0
"""`triton-chat COMMAND ...`: finds the command, gives it the rest of the line, and prints the error that ends it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from frontend import __version__
from scripts.shared.errors import CommandError
from scripts.shared.report import report

# The exit status after Ctrl-C.
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the list.

    module: has `main(arguments) -> int`; imported only when called, as some take seconds. about: its line in the help.
    interrupted: printed when Ctrl-C ends it.
    """

    module: str
    about: str
    interrupted: str = ""


COMMANDS = {
    "serve": Command(
        "scripts.cli.serve", "serve one or more models: tritonserver and the OpenAI API, started and stopped together"
    ),
    "models": Command("scripts.cli.models", "list, load, unload and reload the models of a running server"),
    "prepare": Command(
        "scripts.cli.prepare",
        "fetch, convert and split a model, so that `serve` need not; prints its folder",
        "interrupted; what was begun is not kept",
    ),
    "build": Command(
        "scripts.cli.build",
        "build engines for NVIDIA GPUs: a TensorRT-LLM engine, the vision tower",
        "interrupted; what was begun is not put in place",
    ),
    "repository": Command(
        "scripts.cli.repository", "write the model repository of several models, for your own tritonserver"
    ),
    "split": Command("scripts.split.command", "split a vision-language checkpoint into a folder of your choice"),
    "chat": Command("scripts.cli.chat", "talk to a server in the terminal, with images"),
    "ui": Command("chat_page.__main__", "a chat page in the browser for a server that runs (`serve --ui` starts both)"),
    "keys": Command("frontend.auth.keys", "make an API key and its line for --api-keys-file"),
    "frontend": Command("frontend.__main__", "serve only the OpenAI API, in front of your own tritonserver"),
    "bench": Command(
        "scripts.bench.command",
        "measure this stack beside `vllm serve`",
        "interrupted; everything that was started is stopped",
    ),
    "doctor": Command("scripts.cli.doctor", "check the machine before a start and suggest fixes"),
}
# Packages that an installation may lack: those of pyproject's extras, and what builds plans for NVIDIA GPUs.
OPTIONAL_PACKAGES = frozenset(
    (
        *("accelerate", "aiohttp", "cachetools", "gguf", "msgspec", "num2words"),
        *("onnx", "onnxruntime", "tensorrt", "timm", "torch", "vllm"),
    )
)
# What `--version` prints after this project's own.
VERSIONS = Command("scripts.cli.versions", "the versions of engine, Triton, CUDA, GPU and Python")
USAGE = """usage: triton-chat COMMAND ...

An OpenAI API for text and vision-language models on NVIDIA Triton Inference Server.

{commands}

First steps:
  triton-chat prepare                          fetches tritonserver and the small default model
  triton-chat serve                            serves it at http://127.0.0.1:9997/v1
  triton-chat chat                             from another terminal
  triton-chat serve /models/Qwen3-0.6B --port 8102 --max-model-len 16k

`triton-chat COMMAND --help` shows its options; `triton-chat --version` prints the versions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status, or 2 for a line that names no command."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    if line in (["-h"], ["--help"], ["help"]):
        print(usage())
        return 0
    if line == ["--version"]:
        print(f"triton-chat {__version__}")
        return _run("--version", [])
    if not line or line[0] not in COMMANDS:
        print(_complaint(line), file=sys.stderr)
        return 2
    return _run(line[0], line[1:])


def _run(name: str, arguments: Sequence[str]) -> int:
    command = VERSIONS if name == "--version" else COMMANDS[name]
    try:
        return int(import_module(command.module).main(arguments) or 0)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPTIONAL_PACKAGES:
            raise
        # A command imports what takes seconds only after it has read its line.
        fix = f"pip install {error.name}, or `make setup`"
        print(f"error: `triton-chat {name}` needs the package {error.name}: {fix}", file=sys.stderr)
        return 1
    except CommandError as error:
        report(error)
        return error.status
    except KeyboardInterrupt:
        if command.interrupted:
            print(command.interrupted, file=sys.stderr)
        return INTERRUPTED


def usage() -> str:
    """The text of `triton-chat --help`."""
    commands = "\n".join(f"  {name:<12}{command.about}" for name, command in COMMANDS.items())
    return USAGE.format(commands=commands)


def _complaint(line: Sequence[str]) -> str:
    if not line:
        return usage()
    # A path is no command, however much it looks like one.
    close = [] if "/" in line[0] else get_close_matches(line[0], COMMANDS, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    if not line[0].startswith("-") and not close:
        guess = f" To serve a model: triton-chat serve {' '.join(line)}"
    return f"error: unknown command '{line[0]}'; known: {', '.join(COMMANDS)}.{guess}"
