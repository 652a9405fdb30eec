# SPDX-License-Identifier: Apache-2.0
"""From what `--model` says to a checkpoint folder that can be served."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from preprocessing.checkpoint import Checkpoint
from scripts import prepare_model
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import DEFAULT_MODEL

# Other weight formats that a hub repository may hold beside safetensors; no engine here reads them.
_UNWANTED_FILES = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.pth", "consolidated*", "original/*")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_WEIGHT_FILES = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """checkpoint: what is served. name: what requests call it by default. weight_bytes: size of its weights."""

    checkpoint: Checkpoint
    name: str
    weight_bytes: int


def resolve_model(model: str, console: Console) -> ServedModel:
    """Find, prepare or download the checkpoint; downloads show their progress.

    Raises LaunchError in words for a model that is not there or is no checkpoint.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _served(folder.resolve(), folder.resolve().name)
    if model in (DEFAULT_MODEL, prepare_model.NAME):
        return _served(_prepared(console), prepare_model.NAME)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise LaunchError(f"there is no folder {folder}.", "--model takes a checkpoint folder, a hub id or 'smollm2'.")
    return _served(_downloaded(model), model)


def _prepared(console: Console) -> Path:
    try:
        return prepare_model.prepare_default_model(console)
    except RuntimeError as error:
        raise LaunchError(str(error)) from error


def _downloaded(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, ignore_patterns=list(_UNWANTED_FILES)))
    except GatedRepoError as error:
        raise LaunchError(
            f"'{hub_id}' asks for its licence to be accepted on the hub.", "Accept it there and set HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise LaunchError(
            f"'{hub_id}' is neither a folder here nor a model on the hub.", "A private model needs HF_TOKEN."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise LaunchError(
            f"'{hub_id}' is no folder here, and the model hub could not be reached ({type(error).__name__}).",
            f"Offline give --model a checkpoint folder, or '{DEFAULT_MODEL}', which needs no hub.",
        ) from error


def _served(folder: Path, name: str) -> ServedModel:
    try:
        checkpoint = Checkpoint.load(folder)
    except ValueError as error:
        raise LaunchError(
            f"{error}.", "--model needs a Hugging Face checkpoint folder (config.json, tokenizer, weights)."
        ) from error
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise LaunchError(
            f"'{folder}' has no tokenizer ({', '.join(_TOKENIZER_FILES)}).",
            "Copy the tokenizer's files of the published checkpoint into it.",
        )
    return ServedModel(checkpoint, name, _weight_bytes(folder))


def _weight_bytes(folder: Path) -> int:
    for pattern in _WEIGHT_FILES:
        sizes = [os.stat(path).st_size for path in folder.glob(pattern)]
        if sizes:
            return sum(sizes)
    return 0
