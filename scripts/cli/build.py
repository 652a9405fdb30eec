# SPDX-License-Identifier: Apache-2.0
"""`triton-chat build`: engines' files out of a prepared model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from scripts import export_vit

_VIT = """Write the vision tower as vision/model.onnx and compare its numbers with torch's; prints the file.

onnxruntime runs it as it is (`serve --vit-runtime onnxruntime`), and NVIDIA's trtexec builds an engine from it.
Needs the packages onnx and onnxruntime: pip install 'triton-chat[onnx]'."""
_VIT_EXAMPLE = 'example: triton-chat build vit "$(triton-chat prepare demo-vlm)"'


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the line names; the file's path goes to standard output."""
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        with console.status(f"exporting the tower of {escape(str(options.folder))} in {options.dtype}"):
            path = export_vit.export(options.folder, options.dtype)
    except (ValueError, ImportError) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    print(path)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="triton-chat build",
        description="Build an engine's file from a prepared model.",
        epilog="example: triton-chat build vit /models/internvl2_5-8b-split",
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    vit = what.add_parser(
        "vit",
        help="the vision tower as ONNX",
        description=_VIT,
        epilog=_VIT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    vit.add_argument("folder", type=Path, help="a prepared model: the folder that has a vision/ folder")
    vit.add_argument(
        "--dtype", choices=sorted(export_vit.TOLERANCE), default="float32", help="of the weights (default: %(default)s)"
    )
    return parser.parse_args(sys.argv[1:] if arguments is None else arguments)
