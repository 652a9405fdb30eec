# SPDX-License-Identifier: Apache-2.0
"""Resolve `--model` to a checkpoint folder that can be served."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from common.checkpoint import Checkpoint, read_json
from common.command_line import did_you_mean
from common.model_kind import model_kind
from common.served_model import CHAT, EMBEDDING, MODALITIES
from common.vision_path import LLMAPI, VisionPath, is_unsplit, vision_path
from scripts.cache import build_once, cache_dir
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import DEFAULT_MODEL, DEMO_MODEL
from scripts.prepare import smollm2 as prepare_model
from scripts.setup.check_packages import torch_problem
from scripts.setup.steps import announce_model
from scripts.shared.errors import CommandError
from scripts.shared.own_process import in_own_process
from scripts.shared.weights import WEIGHT_FILES, has_weights, lacks_weights, weight_bytes

# How alike an unknown name and that of a prepared model are if it is a slip.
_SLIP = 0.8
# Other weight formats that a hub repository may hold beside safetensors; no engine here reads them.
_UNWANTED_FILES = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.pth", "consolidated*", "original/*")
# PyTorch's words for a package that was built against another torch.
_OTHER_TORCH = "Could not load this library"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
# BERT's, which only vLLM reads here.
_ENCODER_TOKENIZER = "vocab.txt"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that needs no hub. name: its default name in requests."""

    name: str
    prepare: Callable[[Console], Path]


def _prepare_demo_vlm(console: Console) -> Path:
    from scripts.prepare.demo_vlm import prepare_demo_vlm  # It imports torch, which takes seconds.

    return prepare_demo_vlm(console)


PREPARED = {
    DEFAULT_MODEL: Prepared(prepare_model.NAME, prepare_model.prepare_default_model),
    prepare_model.NAME: Prepared(prepare_model.NAME, prepare_model.prepare_default_model),
    DEMO_MODEL: Prepared(DEMO_MODEL, _prepare_demo_vlm),
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A checkpoint to serve.

    name: its default name in requests. weight_bytes: size of its weights. vision: the path of its pictures.
    kind: one of common.served_model.KINDS.
    """

    checkpoint: Checkpoint
    name: str
    weight_bytes: int
    vision: VisionPath = VisionPath.NONE
    kind: str = CHAT


def modalities(model: ServedModel) -> tuple[str, ...]:
    """What prompts of a model may hold."""
    if model.vision is VisionPath.NONE:
        return ("text",)
    if model.vision is VisionPath.RAW:
        return ("text", "image")
    if model.vision is VisionPath.ENGINE:
        # Families whose processor takes videos have a token for them.
        config = read_json(model.checkpoint.path / "config.json")
        if not any(key.startswith("video_token") for key in config):
            return ("text", "image")
    return MODALITIES


def resolve_model(
    model: str,
    console: Console,
    vision: str | None = None,
    engine: str | None = None,
    kind: str | None = None,
    check: Callable[[ServedModel], None] | None = None,
) -> ServedModel:
    """Find, prepare or download the checkpoint; downloads show their progress.

    vision, engine: as `vision_path` takes them. kind: what it is served for, None for what the checkpoint is made for.
    check: raises LaunchError for a model that cannot be served as asked for. It is called before weights are downloaded
    or split; `weight_bytes` is then what the checkpoint's index says, 0 without one.
    Raises LaunchError if there is no such model, it is no checkpoint, or its pictures cannot take that path.
    """

    def examine(folder: Path, name: str) -> None:
        if found := _examined(folder, name, vision, engine, kind):
            (check or _no_check)(found)

    try:
        folder, name = _find(model, console, examine, engine)
        examine(folder, name)
        if (kind or _kind(folder)) == EMBEDDING:
            return served(folder, name, EMBEDDING)
        return _whole_or_split(folder, name, vision, engine)
    except ImportError as error:
        # Serving a checkpoint takes a Triton; converting one takes torch, which is not in every installation.
        reason = f"the package {error.name} is missing" if error.name else f"packages do not fit together: {error}"
        raise LaunchError(
            f"'{model}' has to be converted, and {reason}.",
            "`triton-chat doctor` looks at them. Run `make setup`, or pip install 'triton-chat[cpu]'.",
        ) from error
    except OSError as error:
        if _OTHER_TORCH not in str(error):
            raise
        raise LaunchError(torch_problem() or f"'{model}' could not be converted: {error}.") from error


def _no_check(model: ServedModel) -> None:
    pass


def _find(model: str, console: Console, examine: Callable[[Path, str], None], engine: str | None) -> tuple[Path, str]:
    """The checkpoint's folder, and its default name in requests.

    examine: called with both before weights are downloaded, when the folder has all other files.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        announce_model(console, f"in {folder.resolve()}", needed=False)
        return folder.resolve(), folder.resolve().name
    if model in PREPARED:
        return PREPARED[model].prepare(console), PREPARED[model].name
    if folder.exists():
        raise LaunchError(f"'{model}' is a file.", "--model takes the folder of a checkpoint.")
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise LaunchError(
            f"there is no folder {folder}.", f"--model takes a checkpoint folder, a hub id, {' or '.join(PREPARED)}."
        )
    if "/" not in model and (guess := did_you_mean(model, PREPARED, _SLIP)):
        raise LaunchError(f"there is no model '{model}'{guess}")
    folder = _downloaded(model, (*_UNWANTED_FILES, *WEIGHT_FILES))
    examine(folder, model)
    size = weight_bytes(folder)
    size_text = f", {size / 1e9:.1f} GB" if size else ""
    announce_model(console, f"{model} from the hub{size_text}", needed=lacks_weights(folder))
    folder = _downloaded(model, _UNWANTED_FILES)
    if engine in (None, "vllm", LLMAPI) and not has_weights(folder):
        raise LaunchError(
            f"'{model}' has no weights on the hub that can be read here ({', '.join(WEIGHT_FILES)}).",
            "Other formats, such as GGUF, are not downloaded. Give a model that has safetensors.",
        )
    return folder, model


def _examined(folder: Path, name: str, vision: str | None, engine: str | None, kind: str | None) -> ServedModel | None:
    """The model as its folder is without weights; None for one whose split has the files that tell."""
    if (kind or _kind(folder)) == EMBEDDING:
        return served(folder, name, EMBEDDING)
    path = _vision_path(folder, vision, engine)
    try:
        return replace(served(folder, name, CHAT), vision=path)
    except LaunchError:
        # The split writes the tokenizer of some models, and their configuration.
        if is_unsplit(folder, path):
            return None
        raise


def _whole_or_split(folder: Path, name: str, vision: str | None, engine: str | None) -> ServedModel:
    path = _vision_path(folder, vision, engine)
    return replace(served(_split(folder) if is_unsplit(folder, path) else folder, name, CHAT), vision=path)


def _vision_path(folder: Path, vision: str | None, engine: str | None) -> VisionPath:
    try:
        return vision_path(folder, vision, engine)
    except ValueError as error:
        raise LaunchError(f"{error}.") from error


def _kind(folder: Path) -> str:
    """What the checkpoint is made for. One that cannot be read is refused by what reads it next."""
    try:
        return model_kind(folder)
    except ValueError:
        return CHAT


def _split(folder: Path) -> Path:
    """The split of an InternVL checkpoint in the cache, made now if missing."""
    config = folder / "config.json"
    key = hashlib.blake2b(str(folder).encode(), digest_size=4).hexdigest()
    entry = cache_dir() / "models" / "split" / f"{folder.name}-{key}"
    try:
        build_once(entry, str(config.stat().st_mtime_ns), lambda empty: in_own_process(_split_into, folder, empty))
    except CommandError as error:
        raise LaunchError(f"'{folder}' could not be split into language model and vision part: {error}") from error
    return entry


def _split_into(folder: Path, empty: Path) -> None:
    from scripts.split.splitter import split_checkpoint  # It imports torch.

    split_checkpoint(folder, empty, console=Console(stderr=True, highlight=False))


def _downloaded(hub_id: str, ignored: Sequence[str]) -> Path:
    """The folder of a hub's model in the cache of downloads, with all files but the ignored ones."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, ignore_patterns=list(ignored)))  # nosec B615 # the model that the operator named
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
            f"'{hub_id}' is not a folder here, and the model hub could not be reached.",
            f"Offline give --model a checkpoint folder, or '{DEFAULT_MODEL}', which needs no hub.",
        ) from error


def served(folder: Path, name: str, kind: str | None = None) -> ServedModel:
    """Read the checkpoint in a folder; raises LaunchError if it has no usable config or no tokenizer.

    kind: what it is served for, None for what the checkpoint is made for.
    """
    kind = kind or _kind(folder)
    try:
        checkpoint = Checkpoint.load(folder, generates=kind == CHAT)
    except ValueError as error:
        raise LaunchError(
            f"{error}.", "--model needs a Hugging Face checkpoint folder (config.json, tokenizer, weights)."
        ) from error
    files = TOKENIZER_FILES if kind == CHAT else (*TOKENIZER_FILES, _ENCODER_TOKENIZER)
    if not any((folder / file).is_file() for file in files):
        raise LaunchError(
            f"'{folder}' has no tokenizer ({', '.join(files)}).",
            "Copy the tokenizer's files of the published checkpoint into it.",
        )
    return ServedModel(checkpoint, name, weight_bytes(folder), kind=kind)
