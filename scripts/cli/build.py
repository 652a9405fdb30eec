# SPDX-License-Identifier: Apache-2.0
"""`triton-chat build`: build an engine or an ONNX file from a prepared model."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.markup import escape

from common.command_line import Parser
from scripts.engine_build import arguments as engine_arguments
from scripts.engine_build import export_vit
from scripts.engine_build.command import build_engine
from scripts.engine_build.vit_plan import PLAN, TileCounts, build_plan
from scripts.shared.errors import EngineError

_VIT = """Write the vision tower as vision/model.onnx and compare its numbers with torch's; prints the file.

onnxruntime runs it unchanged (`serve --vit-runtime onnxruntime`; bfloat16 only on GPUs). With --plan TensorRT builds
vision/model.plan from it (`serve --vit-runtime tensorrt`), in the image and on the kind of GPU that will run it.
Needs the packages onnx and onnxruntime: pip install 'triton-chat[onnx]'."""
_VIT_EXAMPLE = """examples:
  triton-chat build vit demo-vlm
  triton-chat build vit /models/internvl2_5-8b-split --dtype bfloat16 --plan --max-tiles 26"""
_MODEL = "a prepared model's folder, which has a folder vision/, or a model as `serve` takes it: a name or a hub id"
_COUNTS = TileCounts()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the line names; prints what was written. Raises EngineError."""
    options = parse_options(arguments)
    console = Console(stderr=True, highlight=False)
    options.folder = _folder(options.folder, console)
    try:
        return int(options.build(options, console))
    except (ValueError, ImportError) as error:
        raise EngineError(str(error)) from error


def _folder(model: Path, console: Console) -> Path:
    """The checkpoint's folder: a folder that is given, or that of a model as `serve` takes them."""
    if model.is_dir():
        return model
    # Only for a name: it imports for half a second.
    from scripts.launcher.model import resolve_model

    return resolve_model(str(model), console).checkpoint.path


def _build_vit(options: argparse.Namespace, console: Console) -> int:
    counts = TileCounts(options.min_tiles, options.opt_tiles, options.max_tiles)
    tensorrt = _tensorrt() if options.plan else None
    if not (options.folder / "vision" / "config.json").is_file():
        raise EngineError(
            f"'{options.folder}' has no vision tower of its own (vision/config.json).",
            "InternVL models and demo-vlm have one.",
        )
    with console.status(f"exporting the tower of {escape(str(options.folder))} in {options.dtype}") as status:
        path = export_vit.export(options.folder, options.dtype)
        if tensorrt:

            def show(phase: str, done: int, steps: int) -> None:
                status.update(escape(f"TensorRT: {phase}, {done} of {steps}"))

            onnx, path = path, path.with_name(PLAN)
            build_plan(tensorrt, onnx, path, counts, progress=show)
    print(path)
    return 0


def _tensorrt() -> ModuleType:
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise ImportError(f"{error}: build in the image, with the release of TensorRT that loads the plan") from error


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; the option `build` is the function that runs it."""
    parser = Parser(
        prog="triton-chat build",
        description="Build an engine's file from a prepared model.",
        epilog="example: triton-chat build vit /models/internvl2_5-8b-split",
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    vit = _command(what, "vit", "the vision tower as ONNX, and as a TensorRT plan", _VIT, _VIT_EXAMPLE)
    vit.add_argument("folder", type=Path, metavar="MODEL", help=_MODEL)
    vit.add_argument(
        "--dtype", choices=sorted(export_vit.DTYPES), default="float32", help="of the weights (default: %(default)s)"
    )
    vit.add_argument("--plan", action="store_true", help="build the TensorRT plan as well")
    for name, meaning in (("min", "fewest"), ("opt", "usual"), ("max", "most")):
        default = getattr(_COUNTS, name)
        help_ = f"{meaning} tiles of one run of the plan (default: %(default)s)"
        vit.add_argument(f"--{name}-tiles", type=int, default=default, metavar="N", help=help_)
    vit.set_defaults(build=_build_vit)
    about, example = engine_arguments.ABOUT, engine_arguments.EXAMPLE
    engine = _command(what, "engine", "the language model as a TensorRT-LLM engine", about, example)
    engine_arguments.add_arguments(engine)
    engine.set_defaults(build=build_engine)
    return parser.parse_args(sys.argv[1:] if arguments is None else arguments)


def _command(what: "argparse._SubParsersAction[Parser]", name: str, about: str, text: str, example: str) -> Parser:
    return what.add_parser(
        name, help=about, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
