# SPDX-License-Identifier: Apache-2.0
"""Split a checkpoint: check, plan, write to a temporary folder, verify, move to the target."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from scripts.split.config import read_config
from scripts.split.errors import SplitError
from scripts.split.layouts import LAYOUTS, check_splittable
from scripts.split.plan import DTYPES, Part, Plan
from scripts.split.source import Source, write_json
from scripts.split.tokenizer_files import write_tokenizer
from scripts.split.verify import causal_lm_shapes, compare, written_shapes
from scripts.split.writer import Advance, write_weights

SHARD_BYTES = 4_000_000_000
VISION, CONFIG = "vision", "config.json"
# For all other files: a tokenizer.json can have tens of megabytes.
_SPARE_BYTES = 100_000_000


def split_checkpoint(
    source: Path,
    target: Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Split the checkpoint in `source` into `target` and return the target's absolute path.

    dtype: of the written weights, a key of DTYPES; None for the one that most of each part is stored in.
    shard_bytes: limit of one weight file. force: replace an earlier split. console: for progress.
    Raises SplitError with the reason; the target is unchanged then.
    """
    source, target = Path(source).expanduser().resolve(), Path(target).expanduser().resolve()
    if dtype is not None and dtype not in DTYPES:
        raise SplitError(f"unknown dtype '{dtype}'; known: {', '.join(DTYPES)}.")
    config = read_config(source)
    check_splittable(config)
    _check_target(source, target, force)
    checkpoint = Source.open(source, config)
    plan = LAYOUTS[config["model_type"]](checkpoint)
    compare(plan.text.shapes(), causal_lm_shapes(plan.text.config), "language model's")
    text_dtype, vision_dtype = (
        dtype or stored for stored in (_dtype(checkpoint, plan.text), _dtype(checkpoint, plan.vision))
    )
    text_bytes, vision_bytes = plan.text.size(text_dtype), plan.vision.size(vision_dtype)
    _check_space(target, text_bytes + vision_bytes)
    with _built_beside(target) as folder, _progress(console, text_bytes + vision_bytes) as advance:
        vision = folder / VISION
        vision.mkdir()
        # Both keys, as transformers before 4.56 only reads the second.
        write_json(folder / CONFIG, {**plan.text.config, "dtype": text_dtype, "torch_dtype": text_dtype})
        write_json(vision / CONFIG, {**plan.vision.config, "dtype": vision_dtype})
        # Before the weights, which take minutes, so that problems of the tokenizer are reported at once.
        write_tokenizer(source, folder, plan.needed_tokens)
        write_weights(vision, plan.vision.tensors, vision_dtype, vision_bytes, checkpoint.read, advance)
        write_weights(folder, plan.text.tensors, text_dtype, shard_bytes, checkpoint.read, advance)
        _check_result(folder, plan)
    return target


def _dtype(source: Source, part: Part) -> str:
    """The dtype that most of a part is stored in; raises SplitError if tensors are quantised."""
    names = [name for tensor in part.tensors for name in tensor.sources]
    source.check_dtypes(names)
    return source.dtype(names)


def _check_result(folder: Path, plan: Plan) -> None:
    compare(written_shapes(folder), causal_lm_shapes(read_config(folder)), "written language model's")
    compare(written_shapes(folder / VISION), plan.vision.shapes(), "written vision")


def _check_target(source: Path, target: Path, force: bool) -> None:
    if target == source or target in source.parents:
        raise SplitError(f"the output '{target}' would take the place of the checkpoint itself.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise SplitError(f"the output '{target}' is not empty. Give --force to replace an earlier split.")
    if not (target / VISION / CONFIG).is_file():
        raise SplitError(f"'{target}' is not an earlier split, so --force does not replace it.")


def _check_space(target: Path, total: int) -> None:
    place = next(folder for folder in target.parents if folder.is_dir())
    free, needed = shutil.disk_usage(place).free, total + _SPARE_BYTES
    if free < needed:
        raise SplitError(f"the split needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free at '{place}'.")


@contextmanager
def _built_beside(target: Path) -> Iterator[Path]:
    """Make a temporary folder that replaces the target on success and is removed after an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    fresh, old = workshop / "new", workshop / "old"
    try:
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def _progress(console: Console | None, total: int) -> Iterator[Advance]:
    columns = (TextColumn("splitting"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(quiet=True), transient=True) as progress:
        task = progress.add_task("splitting", total=total)
        yield lambda count: progress.advance(task, count)
