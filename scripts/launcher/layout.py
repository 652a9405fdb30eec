# SPDX-License-Identifier: Apache-2.0
"""A model repository with other configs: links to the original, and the configs that differ."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from scripts.launcher.errors import LaunchError


def read_config(repository: Path, file: str) -> ModelConfig:
    """Read a config of the repository; raises LaunchError if it is missing or no config."""
    path = repository / file
    if not path.is_file():
        raise LaunchError(f"--model-repository {repository} has no {file}.")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except text_format.ParseError as error:
        raise LaunchError(f"{path} is not a model config: {error}.") from error


def set_instances(config: ModelConfig, count: int) -> None:
    """Let a model have so many processes."""
    for group in config.instance_group:
        group.count = count


def lay_out(repository: Path, configs: Mapping[str, ModelConfig], folder: Path) -> None:
    """Make `folder` a repository of the same models, with these configs by the models' names."""
    for model in sorted(repository.resolve().iterdir()):
        if model.name not in configs:
            (folder / model.name).symlink_to(model)
    for name, config in configs.items():
        write_model(repository / name, config, folder / name)


def write_model(original: Path, config: ModelConfig, folder: Path) -> None:
    """Make `folder` a model with this config and links to the version folders of the original."""
    folder.mkdir()
    for version in original.resolve().iterdir():
        if version.name.isdigit():
            (folder / version.name).symlink_to(version)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
