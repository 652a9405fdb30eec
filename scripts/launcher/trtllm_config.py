# SPDX-License-Identifier: Apache-2.0
"""The config of TensorRT-LLM's C++ backend with paths and options."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from common.command_line import flag_of, unknown_option
from preprocessing.engine_traits import TRTLLM
from scripts.launcher import layout
from scripts.launcher.engine_folder import EngineFolder, check_world_size, read_engine
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import LaunchOptions, own_flags

MODEL = "tensorrt_llm"
BACKEND = "tensorrtllm"
# Next to tritonserver's bin folder.
BACKENDS = "backends"
_GUIDES = "xgrammar_tokenizer_info_path"
# Set by the launcher itself; an option of the same name would contradict it.
_OWN = ("gpt_model_path", "tokenizer_dir", "exclude_input_in_output")


def engine_name(options: LaunchOptions, environment: Mapping[str, str]) -> str:
    """The engine behind `tensorrt_llm`; the command line overrides the variable."""
    named = TRTLLM if options.model_config_name == TRTLLM else None
    return options.engine_name or named or environment.get("TRITON_CHAT_ENGINE") or "vllm"


def find_engine(options: LaunchOptions, environment: Mapping[str, str]) -> EngineFolder | None:
    """Find the engine of TensorRT-LLM to serve; None if a Python engine serves the checkpoint itself.

    Raises LaunchError for a folder that cannot be served, and for options of the other kind of engine.
    """
    if engine_name(options, environment) != TRTLLM:
        for name in ("engine_dir", "world_size"):
            if getattr(options, name) is not None:
                raise LaunchError(
                    f"--{name.replace('_', '-')} is for --engine {TRTLLM}.",
                    "vLLM takes its own: --tensor-parallel-size, --pipeline-parallel-size.",
                )
        return None
    folder = options.engine_dir or Path(read_config(options.model_repository).parameters["gpt_model_path"].string_value)
    engine = read_engine(folder)
    check_world_size(engine, options.world_size)
    if engine.max_seq_len is not None and (options.max_model_len or 0) > engine.max_seq_len:
        raise LaunchError(
            f"--max-model-len is {options.max_model_len}, but the engine was built for {engine.max_seq_len} tokens.",
            "Lower it, or build the engine with a larger --max_seq_len.",
        )
    return engine


def read_config(repository: Path) -> ModelConfig:
    """Read the config `trtllm` of the repository's model `tensorrt_llm`; raises LaunchError if there is none."""
    return layout.read_config(repository, f"{MODEL}/configs/{TRTLLM}.pbtxt")


def filled_config(options: LaunchOptions, engine: EngineFolder, checkpoint: Path) -> ModelConfig:
    """The config with this engine's paths and parameters, overridden by the options of the command line.

    Raises LaunchError for an option that the backend does not have.
    """
    config = read_config(options.model_repository)
    known = sorted(name for name in config.parameters if name not in _OWN)
    for name in options.engine:
        if name not in known:
            text = unknown_option(flag_of(name), [*map(flag_of, known), *map(flag_of, own_flags())])
            raise LaunchError(text if text.endswith("?") else f"{text} of --engine {TRTLLM}.")
    values = {name: text for name, text in engine.parameters.items() if name in known}
    if engine.guides is not None:
        values[_GUIDES] = str(engine.guides)
    values |= {name: _text(value) for name, value in options.engine.items()}
    values |= {"gpt_model_path": str(engine.path), "tokenizer_dir": str(checkpoint)}
    for name, text in values.items():
        config.parameters[name].string_value = text
    most = options.settings.get("TRITON_CHAT_ENGINE_MAX_REQUESTS")
    if most is not None and re.fullmatch(r"\d+", most):
        config.dynamic_batching.default_queue_policy.max_queue_size = int(most)
    return config


def guided_decoding(config: ModelConfig) -> bool:
    """Whether the config has what guided decoding needs."""
    return bool(config.parameters[_GUIDES].string_value and config.parameters["guided_decoding_backend"].string_value)


def _text(value: Any) -> str:
    """An option's value in the spelling of the backend's configs."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
