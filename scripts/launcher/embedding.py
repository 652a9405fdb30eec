# SPDX-License-Identifier: Apache-2.0
"""An embedding model served alone: its own model repository, and the state file by which frontends know of it."""

from dataclasses import replace
from pathlib import Path

from common.models_state import READY, ModelState, write_states
from common.served_model import EMBEDDING, ServedModelInfo
from scripts.cache import REPOSITORY
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import LaunchOptions

MODEL_REPOSITORY = REPOSITORY / "embedding_repository"
# Options of vLLM that only an embedding model or a cross-encoder can have.
_POOLING = {"runner": ("pooling",), "convert": ("embed", "classify")}


def wanted_kind(options: LaunchOptions) -> str | None:
    """The kind that the command line asks for; None leaves it to the checkpoint."""
    pools = any(options.engine.get(name) in values for name, values in _POOLING.items())
    return options.kind or (EMBEDDING if pools else None)


def embedding_options(options: LaunchOptions, engine: str, *, shared: bool = False) -> LaunchOptions:
    """The options with the model repository of embedding models.

    shared: the repository that was given is for chat models too; without an embedding model it is for them alone.
    Raises LaunchError for another engine than vLLM, and for a repository without such a model.
    """
    if engine != "vllm":
        raise LaunchError(f"--engine {engine} serves no embedding models.", "Leave the option out: vLLM does.")
    given = options.model_repository != LaunchOptions().model_repository
    has_model = (options.model_repository / EMBEDDING / "config.pbtxt").is_file()
    if not has_model and (shared or not given):
        return replace(options, model_repository=MODEL_REPOSITORY)
    if not has_model:
        raise LaunchError(f"--model-repository {options.model_repository} has no model '{EMBEDDING}'.")
    return options


def write_state(folder: Path) -> Path:
    """Write the state file of the one model into the folder; its names are the frontend's setting."""
    file, info = folder / "models.json", ServedModelInfo(kind=EMBEDDING)
    write_states(file, {EMBEDDING: ModelState(state=READY, ensemble=EMBEDDING, engine=EMBEDDING, info=info)})
    return file
