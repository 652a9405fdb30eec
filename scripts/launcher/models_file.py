# SPDX-License-Identifier: Apache-2.0
"""Read which models are served together: `--models FILE`, or `--model NAME=MODEL` for each.

An entry of the file is the command line of one model as a mapping: `max_model_len: 16k` is `--max-model-len 16k`.
"""

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from common.adapters import read_sources
from common.files import reason
from common.model_names import check_name
from frontend.settings import ENV_PREFIX, Settings
from scripts.launcher.adapters import OWN as ADAPTER_OPTIONS
from scripts.launcher.checks import check_engine_clients, check_engine_options
from scripts.launcher.errors import LaunchError, yaml_problem
from scripts.launcher.model_settings import MODEL_SETTINGS
from scripts.launcher.options import UNNEEDED, LaunchOptions, own_flags, parse_model
from scripts.launcher.vllm_options import vllm_options

# The launcher's own flags that one model among several may have.
_LAUNCHER = frozenset(
    {
        *("model", "max_model_len", "preprocessing_instances", "engine_clients", "styler"),
        *("engine", "engine_dir", "engine_config", "world_size", "kind"),
    }
)
# The frontend's settings that a model may have of its own.
FRONTEND = frozenset(
    {
        *("enable_thinking", "inline_reasoning", "trust_request_chat_template"),
        *("max_in_flight", "max_queued", "queue_timeout", "request_timeout"),
    }
)
_EXTRA = frozenset({"aliases", "devices", "environment", "sampling"})
KEYS = _LAUNCHER | FRONTEND | MODEL_SETTINGS.keys() | _EXTRA
# What vLLM takes for defaults that a request may override.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
# Where a key of another spelling is looked for.
_CLOSE = 0.75
_EXAMPLE = "models: {qwen3: {model: Qwen/Qwen3-0.6B}}"
_KINDS: dict[type, str] = {list: "the list", dict: "the mapping", str: "the text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What the operator says of one model.

    options: as if it were served alone, with the server's. devices: numbers of its GPUs among the visible ones, None
    for all. environment: variables for its processes.
    """

    name: str
    options: LaunchOptions
    devices: tuple[int, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests may use; answers carry the first."""
        return (self.name, *self.options.served_model_name)


def read_models(options: LaunchOptions, engine: str = "vllm") -> list[ModelSpec]:
    """Read the models of a command line. engine: the one of models that name none.

    Raises LaunchError naming the file, the model and the key that are wrong.
    """
    if options.models is None:
        own = {name: {"model": model} for name, model in options.named_models.items()}
        specs = [_spec(name, entry, options, engine, f"--model {name}=") for name, entry in own.items()]
    else:
        file = options.models
        entries = _entries(file)
        specs = [_spec(name, entry, options, engine, f"{file}: model '{name}'") for name, entry in entries.items()]
    _check_names(specs, str(options.models or "--model"))
    return specs


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that is written twice is an error: the first would be dropped in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Read a mapping; raises yaml.YAMLError naming the key."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem="a key is not text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"'{key.value}' is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    """Read the file's mapping of names to entries; raises LaunchError."""
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)  # nosec B506 # a SafeLoader
    except OSError as error:
        raise LaunchError(f"--models {file}: {reason(error)}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LaunchError(f"{file}: {yaml_problem(error)}.") from error
    if not isinstance(found, dict) or not isinstance(found.get("models"), dict) or not found["models"]:
        raise LaunchError(
            f"{file}: expected `models:` with a name for each model, and its options below the name.",
            f"For example {_EXAMPLE}",
        )
    if other := [str(key) for key in found if key != "models"]:
        raise LaunchError(f"{file}: unknown key '{other[0]}'; beside `models` there is none: other options are flags.")
    for name, entry in found["models"].items():
        if not isinstance(entry, dict):
            raise LaunchError(
                f"{file}: model '{name}': expected options such as `model: Qwen/Qwen3-0.6B`, not {_shown(entry)}.",
                _entry_advice(str(name), entry),
            )
    return {
        str(name): {str(key).replace("-", "_"): value for key, value in entry.items()}
        for name, entry in found["models"].items()
    }


def _entry_advice(name: str, entry: Any) -> str:
    """What was meant, if the entry is the model itself, or lists its options."""
    listed = entry if isinstance(entry, list) else []
    if listed and all(isinstance(one, dict) for one in listed):
        return "Leave out the dashes before its options."
    if isinstance(entry, str):
        return f"Write {name}: {{model: {entry}}}"
    return f"For example {_EXAMPLE}"


def _spec(name: str, entry: Mapping[str, Any], common: LaunchOptions, engine: str, where: str) -> ModelSpec:
    """Make the spec of an entry; raises LaunchError that begins with `where`."""
    try:
        check_name(name)
        own_engine = str(entry.get("engine") or common.engine_name or engine)
        for key in entry:
            _check_key(key, own_engine)
        if not entry.get("model"):
            raise ValueError("the key 'model' is missing: a checkpoint folder, a hub id, or a prepared model's name")
        given = parse_model([word for key, value in entry.items() for word in _words(key, value)])
        if "named_models" in given.own:
            raise ValueError(f"model: there is no folder {entry['model']}")
        engine_options = {**common.engine, **given.engine}
        if sampling := _sampling(entry.get("sampling"), own_engine):
            engine_options["override_generation_config"] = sampling
        if own_engine == "vllm":
            check_engine_options(engine_options, own_engine, common.model_repository)
        options = replace(
            common,
            **given.own,
            models=None,
            named_models={},
            served_model_name=_texts("aliases", entry.get("aliases")),
            settings={**common.settings, **given.settings},
            engine=engine_options,
            notes=given.notes,
        )
        check_engine_clients(options, own_engine)
        return ModelSpec(
            name=name,
            options=options,
            devices=_devices(entry.get("devices")),
            environment=_environment(entry.get("environment")),
        )
    except ValueError as error:
        text = f"{where}: {error}"
        raise LaunchError(text if text.endswith("?") else f"{text}.") from error


def _check_key(key: str, engine: str) -> None:
    """Raise ValueError for a key that is not for one model, and for one that looks like a slip."""
    if key in KEYS:
        return
    if key == "served_model_name":
        raise ValueError(
            "served_model_name is not allowed here: the entry's own name is the first, `aliases` has the others"
        )
    if key in own_flags() or key in {setting.name for setting in fields(Settings)}:
        raise ValueError(f"{key} is for the whole server and not allowed here; use the flag --{key.replace('_', '-')}")
    known = vllm_options() | ADAPTER_OPTIONS if engine == "vllm" else frozenset()
    if key in known or key in UNNEEDED:
        return
    close = get_close_matches(key, [one for one in KEYS | known if not one.startswith("_")], 1, _CLOSE)
    if close or known:
        hint = f"; did you mean '{close[0]}'?" if close else f": neither the launcher nor the engine {engine} has it"
        raise ValueError(f"unknown key '{key}'{hint}")


def _words(key: str, value: Any) -> Iterator[str]:
    """Write a key and its value as words of a command line."""
    if key in _EXTRA or value is None:
        return
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        value = str(value).lower()
    elif key in FRONTEND | MODEL_SETTINGS.keys() | _LAUNCHER and not isinstance(value, str | int | float):
        raise ValueError(f"{key} must be one value, not {_shown(value)}")
    elif not isinstance(value, str):
        try:
            value = json.dumps(value)
        except TypeError:
            raise ValueError(f"{key} has a value that JSON cannot express: {value!r}") from None
    yield f"{flag}={value}"


def _sampling(value: Any, engine: str) -> dict[str, Any]:
    """The defaults of sampling parameters in the engine's spelling."""
    if value is None:
        return {}
    if engine != "vllm":
        raise ValueError(
            f"sampling is for the engine vllm, not {engine}: it takes the defaults of generation_config.json"
        )
    if not isinstance(value, dict):
        raise ValueError(f"sampling must be a mapping such as {{temperature: 0.6}}, not {_shown(value)}")
    for key, number in value.items():
        if key not in _SAMPLING:
            close = get_close_matches(str(key), _SAMPLING, 1, _CLOSE)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(_SAMPLING)}"
            raise ValueError(f"sampling: unknown key '{key}'; {hint}")
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"sampling: {key} must be a number, not {_shown(number)}")
    return dict(value)


def _texts(key: str, value: Any) -> tuple[str, ...]:
    found = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
        raise ValueError(f"{key} must be a list of names, not {_shown(value)}")
    return tuple(each.strip() for each in found)


def _devices(value: Any) -> tuple[int, ...] | None:
    found = [value] if type(value) is int else value
    if found is None:
        return None
    if not isinstance(found, list) or not found or not all(type(each) is int and each >= 0 for each in found):
        raise ValueError(f"devices must be a list of numbers of GPUs such as [0, 1], not {_shown(value)}")
    if len(set(found)) != len(found):
        raise ValueError(f"devices names a GPU twice: {found}")
    return tuple(found)


def _environment(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(each, str | int | float) for each in value.values()):
        raise ValueError(f"environment must be a mapping of variables to texts, not {_shown(value)}")
    for name in value:
        if name == "CUDA_VISIBLE_DEVICES":
            raise ValueError("environment: CUDA_VISIBLE_DEVICES is written as `devices`")
        if str(name).startswith(ENV_PREFIX):
            raise ValueError(f"environment: {name} is an option: put it beside `environment`, not into it")
    return {str(name): str(text).lower() if isinstance(text, bool) else str(text) for name, text in value.items()}


def _check_names(specs: list[ModelSpec], where: str) -> None:
    """Raise LaunchError if two models, or their adapters, answer to one name."""
    owners: dict[str, str] = {}
    for spec in specs:
        modules = spec.options.engine.get("lora_modules")
        try:
            adapters = [source.name for source in read_sources(modules)] if modules else []
        except ValueError as error:
            raise LaunchError(f"{where}: model '{spec.name}': {error}.") from None
        for name in (*spec.names, *adapters):
            if name in owners:
                raise LaunchError(f"{where}: the name '{name}' is given to both '{owners[name]}' and '{spec.name}'.")
            owners[name] = spec.name


def _shown(value: Any) -> str:
    """A value for a message, as JSON and without the names of Python's types."""
    if value is None:
        return "nothing"
    kind = _KINDS.get(type(value))
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return f"{kind} {text}" if kind else text
