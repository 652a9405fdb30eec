# SPDX-License-Identifier: Apache-2.0
"""The launcher's options: its own flags, and those that it hands on to the frontend and the engine."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml

from common.command_line import Parser, checked, flag_of
from common.files import reason
from common.model_names import check_name
from common.served_model import KINDS
from frontend.settings import ENV_PREFIX, Settings, add_setting, add_settings, names, switch
from scripts.cache import REPOSITORY, cache_dir
from scripts.launcher.errors import yaml_problem
from scripts.launcher.flags import SEVERAL, Flag, field_value, option, size_of, split
from scripts.launcher.model_settings import MODEL_SETTINGS, check_setting
from scripts.launcher.vllm_options import is_text

DEFAULT_MODEL = "smollm2"
DEMO_MODEL = "demo-vlm"
# The ways in which TensorRT-LLM's C++ backend runs on several GPUs.
MPI_MODES = ("leader", "orchestrator")
# Flags of `vllm serve` that are not needed here.
UNNEEDED = {
    "enable_auto_tool_choice": "tool calls are always read",
    "enable_per_request_metrics": "a request asks for its times by the header X-Request-Metrics",
    "trust_request_mm_kwargs": "requests may always set options of pictures and videos, within limits",
}

ABOUT = """Start tritonserver and the OpenAI frontend and stop them together.

  triton-chat serve /models/Qwen3-0.6B --port 8102 --max-model-len 16k --dtype bfloat16
  triton-chat serve --models models.yaml --port 8102
  triton-chat serve --model qwen3=/models/Qwen3-0.6B --model smol=smollm2"""
# The frontend's settings that the launcher sets itself.
_SET_BY_LAUNCHER = frozenset(
    {"triton_url", "triton_metrics_url", "owner", "models_state", "repository_key", "control_socket", "modalities"}
)
_LONGEST_S = 7 * 86_400.0
_ENGINE_HELP = """engine options:
  Any other flag is passed to the engine under its own name, as with `vllm serve`. Often used:
  --dtype NAME, --quantization NAME, --tensor-parallel-size GPUS, --gpu-memory-utilization PART (0 to 1),
  --max-num-seqs REQUESTS, --max-num-batched-tokens TOKENS, --kv-cache-dtype NAME, --no-enable-prefix-caching,
  --speculative-config JSON, --trust-remote-code. Names and values are checked before the start; `vllm serve --help=all`
  lists them. Put MODEL first when you pass engine flags.

LoRA adapters:
  --enable-lora, --lora-modules NAME=PATH ..., --max-loras ADAPTERS (in one step of the engine), --max-lora-rank RANK,
  --max-cpu-loras ADAPTERS (loaded at once), --allowed-lora-path FOLDER ... (to load them while the server runs)."""
# Options that name one model; several have them in models.yaml.
OF_ONE_MODEL = ("served_model_name", "engine_dir", "world_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """The options of one stack.

    model: a checkpoint folder, "smollm2", "demo-vlm" or a hub id. kind: what it is served for, one of
    common.served_model.KINDS; None means what the checkpoint is made for.
    served_model_name: empty means the model's own name.
    given: names of the fields that the command line sets.
    port, ui_port and triton_*_port: 0 picks a free one. ui: with the chat page. frontends: processes that share `port`.
    max_model_len: None means the checkpoint's. preprocessing_instances: None means those of the config, or by cores and
    memory if they run vLLM's processor. engine_clients: processes that share vLLM's engine core, None means those of
    the config. settings: of the frontend and of the models' configs, by environment variable.
    engine: options under the engine's own names. notes: lines to print at the start.
    engine_name: "vllm", "llmapi", "module:Class", or "trtllm" for the TensorRT-LLM engine in engine_dir; None means
    TRITON_CHAT_ENGINE. world_size: GPUs of such an engine, None for the number that it was built for.
    mpi_mode: "leader" or "orchestrator".
    models, named_models: several models instead of `model`: the file that describes them, or checkpoints by name.
    """

    model: str = DEFAULT_MODEL
    models: Path | None = None
    named_models: Mapping[str, str] = field(default_factory=dict)
    kind: str | None = None
    served_model_name: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 9997
    frontends: int = 1
    max_model_len: int | None = None
    preprocessing_instances: int | None = None
    engine_clients: int | None = None
    engine_name: str | None = None
    engine_dir: Path | None = None
    world_size: int | None = None
    mpi_mode: str = "leader"
    styler: str | None = None
    model_repository: Path = REPOSITORY / "model_repository"
    model_config_name: str | None = None
    triton: Path | None = None
    triton_host: str = "127.0.0.1"
    triton_http_port: int = 8000
    triton_grpc_port: int = 8001
    triton_metrics_port: int = 8002
    ui: bool = False
    ui_host: str = "127.0.0.1"
    ui_port: int = 7860
    ready_timeout: float = 600.0
    restarts: int = 5
    log_dir: Path = field(default_factory=lambda: cache_dir() / "logs")
    verbose: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    given: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def several(self) -> bool:
        """Whether models are served under names of their own in Triton."""
        return self.models is not None or bool(self.named_models)


@dataclass(frozen=True, slots=True)
class GivenOptions:
    """What a command line gives explicitly. own: values of the fields of LaunchOptions; the others as there."""

    own: Mapping[str, Any]
    settings: Mapping[str, str]
    engine: Mapping[str, Any]
    notes: tuple[str, ...]


def parse_options(arguments: Sequence[str], command: str = "serve", about: str = ABOUT) -> LaunchOptions:
    """Read the command line; exits with argparse's message for an invalid value.

    command: of `triton-chat`, for the usage line. about: the beginning of its help.
    """
    parser = _parser(_ServeParser, command, about)
    given = _read(parser, arguments)
    values = {"frontends": default_frontends(), **given.own}
    return LaunchOptions(
        **values, settings=given.settings, engine=given.engine, notes=given.notes, given=frozenset(given.own)
    )


def parse_model(arguments: Sequence[str]) -> GivenOptions:
    """Read the command line of one model among several; raises ValueError with argparse's message."""
    return _read(_parser(_RaisingParser, "serve", ""), arguments)


def own_flags() -> frozenset[str]:
    """The launcher's own flags, without dashes and with underscores."""
    actions = _parser(_ServeParser, "serve", "")._actions
    return frozenset(
        flag.removeprefix("--").replace("-", "_")
        for action in actions
        for flag in action.option_strings
        if flag.startswith("--")
    )


class _ServeParser(Parser):
    """The parser of `serve`, whose help also has the options that it hands on."""

    def format_help(self) -> str:
        """The launcher's options, and then those of the frontend and of the models, in groups."""
        others = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS, formatter_class=self.formatter_class)
        own = {action.dest for action in self._actions}
        add_settings(others.add_argument_group("frontend").add_argument, without=own | _SET_BY_LAUNCHER)
        models = others.add_argument_group("prompts, pictures and the vision tower")
        for name, setting in MODEL_SETTINGS.items():
            add_setting(models.add_argument, name, setting.parse, setting.about, setting.default)
        return f"{super().format_help()}\n{others.format_help()}\n{_ENGINE_HELP}\n"


class _RaisingParser(Parser):
    """A parser that raises ValueError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(self.explained(message))


def _read(parser: Parser, arguments: Sequence[str]) -> GivenOptions:
    own = {flag for action in parser._actions for flag in action.option_strings}
    ours, foreign = split(arguments, own)
    values = {key: value for key, value in vars(parser.parse_args(ours)).items() if value is not None}
    config_file = values.pop("engine_config", None)
    try:
        values |= _chosen_models(values.pop("positional", None), values.pop("model", []), values)
        engine = _read_engine_config(config_file) if config_file else {}
    except ValueError as error:
        parser.error(str(error))
    try:
        settings, engine, notes = _sort_foreign(foreign, values.get("engine_name", "vllm"), engine)
    except ValueError as error:
        parser.error(str(error))
    if "served_model_name" in values:
        values["served_model_name"] = tuple(values["served_model_name"])
    return GivenOptions(values, settings, absolute(engine), notes)


def _chosen_models(positional: str | None, flags: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sort the values of --model into one model, or several by name; raises ValueError if there is no telling."""
    named: dict[str, str] = {}
    plain: list[str] = [] if positional is None else [positional]
    for word in flags:
        name, equals, model = word.partition("=")
        # The path of a folder may hold the character as well.
        if not equals or "/" in name or Path(word).exists():
            plain.append(word if positional is None else f"--model {word}")
        elif check_name(name) in named:
            raise ValueError(f"--model {name}= is given twice")
        else:
            named[name] = model
    if len(plain) > 1:
        raise ValueError(
            f"two models were given: {plain[0]} and {plain[1]}; several need names: --model NAME={plain[1]}"
        )
    several = "models" in values or named
    if several and (plain or ("models" in values and named)):
        other = plain[0] if plain else next(iter(named))
        raise ValueError(f"--models or --model NAME=PATH says which models are served, and {other} was given as well")
    for name in OF_ONE_MODEL:
        if several and name in values:
            flag = flag_of(name)
            raise ValueError(f"{flag} is for one model; with several it belongs to its entry in --models")
    return {"model": plain[0]} if plain else {"named_models": named} if named else {}


def _sort_foreign(
    foreign: Sequence[Flag], engine_name: str, file: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, Any], tuple[str, ...]]:
    """Sort flags into settings by variable, engine options and notes; the engine gets those that are no settings.

    file: the engine options of `--engine-config`, which flags replace; those of single fields are added at the end.
    """
    parsers = {setting.name: setting.metadata["parse"] for setting in fields(Settings)}
    parsers |= {name: setting.parse for name, setting in MODEL_SETTINGS.items()}
    settings: dict[str, str] = {}
    engine: dict[str, Any] = {}
    single: list[Flag] = []
    notes: list[str] = []
    for flag in foreign:
        name, value = option(flag)
        if name in parsers:
            if value is True and not flag.words and parsers[name] is not switch:
                raise ValueError(f"{flag.name} needs a value")
            text = flag.words[0] if flag.words else str(value).lower()
            check_setting(flag.name, text, parsers[name])
            variable = ENV_PREFIX + name.upper()
            # A repeated flag adds to a list; of other settings the last value counts, as of engine options.
            more = variable in settings and parsers[name] is names
            settings[variable] = f"{settings[variable]},{text}" if more else text
        elif name in UNNEEDED:
            notes.append(f"{flag.name} is not needed: {UNNEEDED[name]}")
        elif flag.name in SEVERAL:
            engine[name] = [*engine.get(name, ()), *value]
        elif "." in name:
            single.append(flag)
        elif engine_name == "vllm" and flag.words and is_text(name, flag.words[0], value):
            engine[name] = flag.words[0]
        else:
            engine[name] = value
    engine = {**file, **engine}
    for flag in single:
        _set_field(engine, flag)
    return settings, engine, tuple(notes)


def _set_field(engine: dict[str, Any], flag: Flag) -> None:
    """Set a field of an option that is an object, as `--compilation-config.mode 3`; raises ValueError if it is none."""
    if not flag.words:
        raise ValueError(f"{flag.name} needs a value")
    name, *outer, last = flag.key.split(".")
    option = engine.setdefault(name, {})
    for each in outer:
        option = option.setdefault(each, {}) if isinstance(option, dict) else None
    if not isinstance(option, dict):
        raise ValueError(f"{flag.name}: {flag_of(name)} was given another value")
    # As in `vllm serve`, the texts of a name with a plus are added to a list.
    if last.endswith("+"):
        name = last.removesuffix("+")
        option[name] = [*(option.get(name) or ()), *flag.words[0].split(",")]
    else:
        option[last] = field_value(flag.words[0])


def _read_engine_config(path: Path) -> dict[str, Any]:
    """Read engine options from a JSON or YAML file; raises ValueError naming the file if it has no object."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--engine-config {path}: {reason(error)}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"--engine-config {path}: {yaml_problem(error)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"--engine-config {path}: expected `option: value` in each line, or a JSON object")
    # The engine gets them as JSON, so what JSON cannot express (a YAML date) is refused here.
    return dict(json.loads(json.dumps({str(key).replace("-", "_"): item for key, item in value.items()})))


def absolute(value: Any) -> Any:
    """Make relative paths absolute in the value of an option, and in its lists and dicts.

    tritonserver runs in a folder of its own. A text is a path if it begins with ./ or ../ or names a file that exists,
    or, with a slash in it, a folder.
    """
    if isinstance(value, dict):
        return {key: absolute(item) for key, item in value.items()}
    if isinstance(value, list):
        return [absolute(item) for item in value]
    return os.path.abspath(value) if isinstance(value, str) and _is_relative_path(value) else value


def _is_relative_path(text: str) -> bool:
    if os.path.isabs(text):
        return False
    return text.startswith(("./", "../")) or os.path.isfile(text) or ("/" in text and os.path.isdir(text))


def default_frontends() -> int:
    """One frontend process per four cores, from one to four: the engine needs the cores more."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 4))


@checked
def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError(f"must be a port from 0 to 65535, not '{text}'")
    return int(text)


@checked
def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"must be a whole number, 0 or more, not '{text}'")
    return int(text)


@checked
def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"must be a whole number above 0, not '{text}'")
    return int(text)


@checked
def _size(text: str) -> int:
    try:
        return size_of(text)
    except ValueError:
        raise ValueError(f"must be a whole number above 0, such as 16384 or 16k, not '{text}'") from None


@checked
def _context(text: str) -> int:
    if text.lower() == "auto" or text == "-1":
        # Prompts are checked against it before they reach the engine, which would find it out.
        raise ValueError(f"must be a number here, not '{text}'; leave it out for the checkpoint's own")
    return _size(text)


@checked
def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= _LONGEST_S:
        raise ValueError(f"must be a number of seconds above 0, not '{text}'")
    return number


def _parser(kind: type[Parser], command: str, about: str) -> Parser:
    parser = kind(
        prog=f"triton-chat {command}",
        usage=f"triton-chat {command} [MODEL] [OPTION ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=None,
        description=about,
    )
    defaults = LaunchOptions()
    add = parser.add_argument_group("models").add_argument
    add("positional", nargs="?", metavar="MODEL", help="the model, as --model")
    add(
        "--model",
        action="append",
        help=f"checkpoint folder, hub id, {DEFAULT_MODEL} (default) or {DEMO_MODEL}, which are prepared without a hub; "
        "NAME=MODEL, once for each of several models that get the other options together",
    )
    add("--models", type=Path, metavar="FILE", help="YAML file with several models, each with options of its own")
    add(
        "--kind",
        choices=KINDS,
        help="what the model is served for (default: by its files): chat, or embedding, also for rerankers",
    )
    add("--served-model-name", nargs="+", metavar="NAME", help="names that requests use (default: the model's own)")
    add(
        "--max-model-len",
        type=_context,
        metavar="TOKENS",
        help="context length: prompt and answer, 16k and 16K too (default: the checkpoint's)",
    )
    add(
        "--styler", metavar="NAME", help="model family, for prompts and answers (default: detected from the checkpoint)"
    )
    add(
        "--preprocessing-instances",
        type=_number,
        metavar="N",
        help="processes that write prompts and process pictures (default: 2 to 8, by cores and memory)",
    )
    add = parser.add_argument_group("API").add_argument
    add("--host", metavar="ADDRESS", help=f"address of the OpenAI API (default: {defaults.host})")
    add("--port", type=_port, metavar="PORT", help=f"its port; 0 picks a free one (default: {defaults.port})")
    add("--frontends", type=_number, metavar="N", help=f"frontend processes (default: {default_frontends()} here)")
    add = parser.add_argument_group("engine").add_argument
    add(
        "--engine",
        dest="engine_name",
        metavar="NAME",
        help="vllm (default), trtllm for a TensorRT-LLM engine, llmapi for TensorRT-LLM's LLM API, module:Class",
    )
    add(
        "--engine-clients",
        type=_number,
        metavar="N",
        help="processes of tensorrt_llm, which share vLLM's engine core (default: 1)",
    )
    add("--engine-config", type=Path, metavar="FILE", help="JSON or YAML object of engine options; flags override it")
    add(
        "--engine-dir",
        type=Path,
        metavar="FOLDER",
        help="folder written by trtllm-build, for --engine trtllm (default: /engine)",
    )
    add(
        "--world-size",
        type=_number,
        metavar="GPUS",
        help="GPUs of that engine; must be the number that it was built for (the default)",
    )
    add(
        "--mpi-mode",
        choices=MPI_MODES,
        help="leader (default): a tritonserver for each GPU; orchestrator: one, which starts workers",
    )
    add = parser.add_argument_group("Triton").add_argument
    add("--model-repository", type=Path, metavar="FOLDER", help="Triton model repository (default: this project's)")
    add(
        "--model-config-name",
        metavar="NAME",
        help="named config of the models, such as trtllm (default: config.pbtxt)",
    )
    add(
        "--triton",
        type=Path,
        metavar="FILE",
        help="tritonserver binary (default: the container's, else the embedded one)",
    )
    add("--triton-host", metavar="ADDRESS", help=f"address of Triton's own endpoints (default: {defaults.triton_host})")
    for endpoint, title in (("http", "HTTP"), ("grpc", "gRPC"), ("metrics", "metrics")):
        default = getattr(defaults, f"triton_{endpoint}_port")
        about = f"Triton's {title} port; 0 picks a free one (default: {default}, or a free one if that is taken)"
        add(f"--triton-{endpoint}-port", type=_port, metavar="PORT", help=about)
    add = parser.add_argument_group("chat page").add_argument
    add("--ui", action="store_true", help="also start the chat page")
    add("--ui-host", metavar="ADDRESS", help=f"its address (default: {defaults.ui_host})")
    add("--ui-port", type=_port, metavar="PORT", help=f"its port; 0 picks a free one (default: {defaults.ui_port})")
    add = parser.add_argument_group("processes").add_argument
    add(
        "--ready-timeout",
        type=_seconds,
        metavar="SECONDS",
        help=f"time within which everything must be ready (default: {defaults.ready_timeout:g})",
    )
    add(
        "--restarts",
        type=_count,
        metavar="N",
        help=f"restarts of a process allowed within 15 minutes (default: {defaults.restarts})",
    )
    add(
        "--log-dir",
        type=Path,
        metavar="FOLDER",
        help="folder for the logs of all processes (default: logs in the cache folder)",
    )
    add("--verbose", action="store_true", help="also show the logs here")
    return parser
