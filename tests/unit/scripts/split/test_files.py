# SPDX-License-Identifier: Apache-2.0
"""Splitting as a job on files: checks before it, interruptions, and memory."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from scripts.split import command, splitter
from scripts.split.errors import SplitError
from scripts.split.plan import OutputTensor
from scripts.split.splitter import split_checkpoint
from scripts.split.writer import shard
from tests.support.vlm_checkpoints import make_internvl, make_tokenizer, write_shards


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vlm")
    return make_internvl(
        folder / "vlm", make_tokenizer(folder / "tokenizer"), "internlm2", "original", hidden_size=256
    ).path


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "vlm")


def test_shards_are_bounded_and_loadable(checkpoint: Path, tmp_path: Path) -> None:
    whole = load_file(split_checkpoint(checkpoint, tmp_path / "whole") / "model.safetensors")
    split = split_checkpoint(checkpoint, tmp_path / "split", shard_bytes=600_000)
    index = json.loads((split / "model.safetensors.index.json").read_text())
    files = sorted(split.glob("model-*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)
    ]
    assert len(files) > 3
    held = {file.name: load_file(file) for file in files}
    assert all(sum(tensor.nbytes for tensor in tensors.values()) <= 600_000 for tensors in held.values())
    assert index["weight_map"] == {name: file for file, tensors in held.items() for name in tensors}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    tensors = {name: tensor for part in held.values() for name, tensor in part.items()}
    assert tensors.keys() == whole.keys()
    assert all(torch.equal(tensors[name], whole[name]) for name in whole)


def test_a_tensor_larger_than_a_shard_has_one_to_itself() -> None:
    tensors = [OutputTensor(name, (size,), ()) for name, size in (("a", 2), ("b", 9), ("c", 2), ("d", 2))]
    assert [[tensor.name for tensor in part] for part in shard(tensors, "float32", 16)] == [["a"], ["b"], ["c", "d"]]


def test_a_sharded_checkpoint_is_read(checkpoint: Path, tmp_path: Path) -> None:
    whole = load_file(split_checkpoint(checkpoint, tmp_path / "whole") / "model.safetensors")
    write_shards(checkpoint, 4)
    tensors = load_file(split_checkpoint(checkpoint, tmp_path / "split") / "model.safetensors")
    assert tensors.keys() == whole.keys()
    assert all(torch.equal(tensors[name], whole[name]) for name in whole)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def promise_more(path: Path) -> None:
    index = json.loads(path.read_text())
    index["weight_map"]["language_model.more"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))


SHARD, INDEX = "model-00002-of-00003.safetensors", "model.safetensors.index.json"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "bad config": (lambda folder: (folder / "config.json").write_text("{"), "config.json' is not valid JSON"),
    "no shard": (lambda folder: (folder / SHARD).unlink(), f"lacks weight files that its index names: {SHARD}"),
    "half a shard": (lambda folder: truncate(folder / SHARD), f"{SHARD}' is broken or not wholly downloaded"),
    "LFS pointer": (
        lambda folder: (folder / SHARD).write_text("version https://git-lfs.github.com/spec/v1\n"),
        f"{SHARD}' is broken or not wholly",
    ),
    "empty index": (lambda folder: (folder / INDEX).write_text("{}"), "has no weight_map"),
    "index promises more": (
        lambda folder: promise_more(folder / INDEX),
        "lacks tensors that model.safetensors.index.json promises: language_model.more",
    ),
    "no weights": (
        lambda folder: [file.unlink() for file in folder.glob("model*")],
        "has neither model.safetensors.index.json nor model.safetensors",
    ),
    "pickles": (
        lambda folder: [file.unlink() for file in folder.glob("model*")] and (folder / "pytorch_model.bin").touch(),
        r"\.bin files.*save_pretrained",
    ),
    "no folder": (shutil.rmtree, "there is no checkpoint folder"),
}


@pytest.mark.parametrize(("harm", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_checkpoints_are_refused_with_what_is_missing(
    checkpoint: Path, harm: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write_shards(checkpoint, 3)
    harm(checkpoint)
    with pytest.raises(SplitError, match=message):
        split_checkpoint(checkpoint, tmp_path / "split")
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_an_interrupted_split_leaves_nothing(
    checkpoint: Path, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = splitter.Source.read, count()

    def fails_later(self: splitter.Source, name: str) -> torch.Tensor:
        if next(calls) == 30:
            raise error
        return read(self, name)

    monkeypatch.setattr(splitter.Source, "read", fails_later)
    (tmp_path / "out").mkdir()
    with pytest.raises(type(error)):
        split_checkpoint(checkpoint, tmp_path / "out" / "split")
    assert next(calls) > 30
    assert list((tmp_path / "out").iterdir()) == []


def test_a_result_that_is_not_as_planned_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = splitter.write_weights

    def forgets_one(folder: Path, tensors: tuple[OutputTensor, ...], *rest: object) -> None:
        write(folder, tensors[1:], *rest)

    monkeypatch.setattr(splitter, "write_weights", forgets_one)
    with pytest.raises(SplitError, match=r"the written .* missing: "):
        split_checkpoint(checkpoint, tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_force_replaces_an_earlier_split_only(checkpoint: Path, tmp_path: Path) -> None:
    split = split_checkpoint(checkpoint, tmp_path / "split")
    (split / "stale").touch()
    with pytest.raises(SplitError, match=r"is not empty\. Give --force"):
        split_checkpoint(checkpoint, split)
    assert (split / "stale").exists()
    split_checkpoint(checkpoint, split, force=True)
    assert not (split / "stale").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(SplitError, match="is not an earlier split, so --force does not replace it"):
        split_checkpoint(checkpoint, tmp_path / "precious", force=True)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_a_failed_replacement_leaves_the_earlier_split(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_checkpoint(checkpoint, tmp_path / "split")
    rename = Path.rename

    def fails_on_the_new_one(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no rename")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_on_the_new_one)
    with pytest.raises(OSError, match="no rename"):
        split_checkpoint(checkpoint, split, force=True)
    assert (split / "model.safetensors").is_file()


def test_the_output_cannot_take_the_checkpoints_place(checkpoint: Path) -> None:
    for target in (checkpoint, checkpoint.parent):
        with pytest.raises(SplitError, match="take the place of the checkpoint itself"):
            split_checkpoint(checkpoint, target, force=True)
    assert (checkpoint / "model.safetensors").is_file()


def test_too_little_disk_space_is_reported_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=101_000_000))
    with pytest.raises(SplitError, match=r"needs 0\.1 GB, but only 0\.1 GB are free at"):
        split_checkpoint(checkpoint, tmp_path / "deep" / "split")
    assert not (tmp_path / "deep").exists()


def test_an_unknown_dtype_is_refused_with_the_known_ones(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="unknown dtype 'int8'; known: bfloat16, float16, float32"):
        split_checkpoint(checkpoint, tmp_path / "split", dtype="int8")


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("4GiB", 2**32), ("500 mb", 5 * 10**8), ("1.5K", 1500), ("77", 77)]
)
def test_sizes(text: str, size: int) -> None:
    assert command.size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4XB", "-1GB", "0"])
def test_invalid_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        command.size(text)


def test_the_command(checkpoint: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "scripts.cli",
        "split",
        str(checkpoint),
        str(tmp_path / "split"),
        "--dtype",
        "bfloat16",
        "--shard-size",
        "300KB",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
    assert str(tmp_path / "split") in done.stderr
    assert json.loads((tmp_path / "split" / "config.json").read_text())["dtype"] == "bfloat16"
    again = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert again.returncode == 1
    assert again.stderr.startswith("error: the output")


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that the command replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_even_if_native_code_swallows_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    def interrupted(self: splitter.Source, name: str) -> torch.Tensor:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None
        raise AssertionError("the signal was not handled")

    monkeypatch.setattr(splitter.Source, "read", interrupted)
    assert command.main([str(checkpoint), str(tmp_path / "out" / "split")]) == status
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_counts_every_byte_to_be_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    advance = splitter.Progress.advance
    monkeypatch.setattr(
        splitter.Progress, "advance", lambda self, task, step: (seen.append(step), advance(self, task, step))
    )
    split = split_checkpoint(checkpoint, tmp_path / "split", console=Console(quiet=True))
    files = (split / "model.safetensors", split / "vision" / "model.safetensors")
    assert sum(seen) == sum(tensor.nbytes for file in files for tensor in load_file(file).values())


# Splits a small checkpoint, so that all modules are loaded, and then a large one; prints by how many bytes the second
# raised the process's resident memory at its highest. Writing 5 to clear_refs makes the kernel forget the peak so far.
MEASURE = """
import sys
from pathlib import Path
from scripts.split.splitter import split_checkpoint
small, large, out = map(Path, sys.argv[1:])
def memory(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))
split_checkpoint(small, out / "small-split")
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
split_checkpoint(large, out / "large-split", shard_bytes=100_000_000)
print(memory("VmHWM") - before)
"""


def test_memory_is_bounded_by_tensors_not_by_files(made: Path, tmp_path: Path) -> None:
    large = widen(made, tmp_path / "large", layers=8)
    weights = (large / "model.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, made, large, tmp_path], capture_output=True, text=True, timeout=120, check=True
    )
    assert weights > 250_000_000
    # The largest tensor is 12 MB: what is read and what is made of it, and some room for the allocator.
    assert int(done.stdout) < 60_000_000


def widen(made: Path, folder: Path, layers: int) -> Path:
    """A copy whose language model has more and much wider layers, which would be hundreds of megabytes in one."""
    shutil.copytree(made, folder)
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"] |= {"num_hidden_layers": layers, "intermediate_size": 12_000, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    first = {
        name: tensor for name, tensor in tensors.items() if ".layers.0." in name and name.startswith("language_model.")
    }
    for name in ("w1", "w2", "w3"):
        shape = (256, 12_000) if name == "w2" else (12_000, 256)
        first[f"language_model.model.layers.0.feed_forward.{name}.weight"] = torch.zeros(shape)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("language_model.model.layers.")}
    for layer in range(layers):
        tensors |= {name.replace(".layers.0.", f".layers.{layer}."): tensor.clone() for name, tensor in first.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder
