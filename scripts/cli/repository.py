# SPDX-License-Identifier: Apache-2.0
"""`triton-chat repository`: write the model repository of several models, for a tritonserver that others start."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from scripts.launcher.errors import LaunchError
from scripts.launcher.options import parse_options

_ABOUT = """Write Triton's model repository of several models, for a tritonserver that you start yourself.
Run it where they are served: it looks at the GPUs and cores. The folder links to the code of this installation.

  triton-chat repository --models models.yaml --output /repository
  tritonserver --model-repository=/repository --disable-auto-complete-config
  triton-chat frontend --triton-url 127.0.0.1:8001

--output FOLDER   the folder to write; it must be new or empty. The other options are those of `triton-chat serve`:"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder and print its path; raises LaunchError if a model cannot be served."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", type=Path)
    given, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    options = parse_options(rest, "repository", _ABOUT)
    if not options.several:
        raise LaunchError(
            "which models? Give --models FILE, or --model NAME=MODEL for each.",
            "A single model needs none: model_repository/ itself serves it.",
        )
    if given.output is None:
        raise LaunchError("--output FOLDER is missing.")
    folder = given.output.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LaunchError(f"--output {folder} is not empty.")
    # They take a second to import, which --help need not wait for.
    from scripts.launcher.model_folders import ModelFolders
    from scripts.launcher.models_file import read_models
    from scripts.launcher.planner import Planner

    console = Console(stderr=True, highlight=False)
    specs = read_models(options, os.environ.get("TRITON_CHAT_ENGINE") or "vllm")
    planned = Planner(os.environ, {**os.environ, **options.settings}, None, console).plan(specs)
    folders = ModelFolders(folder)
    for one in planned:
        folders.write(one.plan)
        console.print(f"{one.name}: {escape(str(one.model.checkpoint.path))}", soft_wrap=True)
    print(folder)
    return 0
