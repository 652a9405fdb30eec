# SPDX-License-Identifier: Apache-2.0
"""The frontend's settings, read once and frozen: a flag overrides the environment, which overrides the default."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from common.command_line import Parser, did_you_mean, web_url
from common.logs import FORMATS, LEVELS
from common.served_model import MODALITIES

ENV_PREFIX = "TRITON_CHAT_"
SETTING_KEY = "setting:"  # what names of API keys from the settings begin with; those of the file of keys cannot


class SettingsError(ValueError):
    """A setting whose value cannot be used; the message names the key and the value."""


def text(value: str) -> str:
    """A text that is not empty; raises ValueError, as all parsers of settings, with what was expected."""
    if not value.strip():
        raise ValueError("a value that is not empty")
    return value.strip()


def address(value: str) -> str:
    """A host and its port, or a Unix socket."""
    host, _, port = value.strip().rpartition(":")
    if not value.startswith("unix:") and not (host and port.isdecimal()):
        raise ValueError("host:port")
    return value.strip()


def web_address(value: str) -> str:
    """An http:// or https:// address."""
    try:
        return web_url(value.strip())
    except ValueError:
        raise ValueError("an address such as http://127.0.0.1:4318") from None


def names(value: str) -> tuple[str, ...]:
    """A list whose items are separated by commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def switch(value: str) -> bool:
    """True or false."""
    switches = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.strip().lower() not in switches:
        raise ValueError("true or false")
    return switches[value.strip().lower()]


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers within limits."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return parse


def seconds_or_zero(value: str) -> float:
    """A number of seconds, at most a day, or 0."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 86_400:
        raise ValueError("a number of seconds from 0 to 86400")
    return number


def seconds(value: str) -> float:
    """A number of seconds above 0, at most a day."""
    try:
        number = seconds_or_zero(value)
    except ValueError:
        number = 0.0
    if not number:
        raise ValueError("a number of seconds above 0 and up to 86400")
    return number


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """A parser of one of these words, in lower case."""
    known = tuple(choices)

    def parse(value: str) -> str:
        chosen = value.strip().lower()
        if chosen not in known:
            raise ValueError(f"one of {', '.join(known)}{did_you_mean(chosen, known)}")
        return chosen

    return parse


def several_of(choices: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of some of these words, with commas between them."""
    parse_one = one_of(choices)
    return lambda value: tuple(parse_one(word) for word in value.split(",") if word.strip())


def _setting(default: Any, parse: Callable[[str], Any], about: str) -> Any:
    return field(default=default, metadata={"parse": parse, "about": about})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process.

    Each field is the flag `--field-name` and the environment variable `TRITON_CHAT_FIELD_NAME`.
    """

    host: str = _setting("127.0.0.1", text, "address to listen on")
    port: int = _setting(9997, whole(0, 65_535), "port to listen on; several processes may share it")
    metrics_port: int | None = _setting(
        None, whole(1, 65_535), "port of /metrics, on the same address; the API's port then has no metrics"
    )
    triton_url: str = _setting("127.0.0.1:8001", address, "Triton's gRPC address, host:port")
    triton_metrics_url: str | None = _setting(
        None, web_address, "Triton's metrics, for the load of TensorRT-LLM's C++ backend: http://127.0.0.1:8002/metrics"
    )
    owner: str | None = _setting(
        None, text, "name of this process; at start it cancels requests that a process of this name left in the engine"
    )
    served_model_name: tuple[str, ...] = _setting(
        ("triton-chat",), names, "names that requests may call the model by; the first is the default"
    )
    models_state: str | None = _setting(
        None, text, "file in which a launcher writes which models it serves; else Triton is asked what is loaded"
    )
    repository_key: str | None = _setting(
        None, text, "key to ask the Triton of a launcher that did not start this frontend which models are loaded"
    )
    control_socket: str | None = _setting(None, text, "Unix socket of the launcher that loads and unloads models")
    max_model_len: int | None = _setting(None, whole(1, 2**31 - 1), "context length that /v1/models reports")
    modalities: tuple[str, ...] = _setting(
        (), several_of(MODALITIES), "what prompts may hold, as /v1/models reports it: text, image and video"
    )
    inline_reasoning: bool = _setting(False, switch, "keep the reasoning in the content, inside its tags")
    enable_thinking: bool | None = _setting(
        None, switch, "thinking if a request does not set it; else the model's default"
    )
    trust_request_chat_template: bool = _setting(
        False, switch, "accept `chat_template` in requests; only for trusted clients, because a template is a program"
    )
    max_body_bytes: int = _setting(32 * 2**20, whole(1, 2**31 - 1), "largest request body")
    max_request_memory: int = _setting(
        2 * 2**30, whole(1, 2**50), "bytes for large bodies and pictures of all requests, per process; others wait"
    )
    max_in_flight: int = _setting(512, whole(1, 1_000_000), "requests sent to the engine at once, per process")
    max_queued: int = _setting(64, whole(0, 1_000_000), "requests that may queue behind those; more get a 503 at once")
    queue_timeout: float = _setting(5.0, seconds, "time limit in that queue; then 503")
    request_timeout: float = _setting(600.0, seconds, "time limit of a request; X-Request-Timeout may shorten it")
    body_timeout: float = _setting(60.0, seconds, "time limit for receiving a request's body")
    stall_timeout: float = _setting(30.0, seconds, "seconds a client may leave its stream unread")
    max_backlog: int = _setting(
        2**20, whole(1, 2**31 - 1), "bytes buffered for a client that reads its stream too slowly"
    )
    shutdown_delay: float = _setting(
        0.0, seconds_or_zero, "seconds after SIGTERM in which readiness is false and new requests are still served"
    )
    grace_period: float = _setting(30.0, seconds, "time for requests to finish after SIGTERM and that delay")
    response_store: str | None = _setting(
        None, text, "SQLite file that keeps responses for `previous_response_id`; else none is kept"
    )
    response_store_days: int = _setting(30, whole(1, 36_500), "days that a response is kept after its last use")
    response_store_bytes: int = _setting(
        2**30, whole(2**20, 2**50), "size of that file; what was used longest ago is deleted first"
    )
    api_key: tuple[str, ...] = _setting((), names, "bearer keys accepted by /v1 and /tokenize; empty: no key needed")
    api_keys_file: str | None = _setting(None, text, "hashed keys by name, with limits; read again when it changes")
    api_key_rate: int | None = _setting(None, whole(1, 10**9), "requests per minute that each key may start")
    api_key_burst: int | None = _setting(None, whole(1, 10**9), "requests that a key may start at once after a pause")
    api_key_concurrent: int | None = _setting(None, whole(1, 10**9), "concurrent requests of each key")
    admin_key: str | None = _setting(None, text, "bearer key of /admin/models; empty: there is no such path")
    cache_salt_by_key: bool = _setting(
        False, switch, "never share the prefix cache between API keys, so that none can tell what others have asked"
    )
    cors_allow_origins: tuple[str, ...] = _setting((), names, "origins that browsers may call from; * allows any")
    tls_certificate: str | None = _setting(None, text, "PEM file of the certificate chain; turns TLS on")
    tls_key: str | None = _setting(None, text, "PEM file of the certificate's key")
    image_dirs: tuple[str, ...] = _setting((), names, "directories that file:// image URLs may read from")
    image_hosts: tuple[str, ...] = _setting((), names, "hosts that image URLs may name; empty: any public host")
    image_private_hosts: bool = _setting(False, switch, "let image URLs reach private and loopback addresses")
    image_max_bytes: int = _setting(20 * 2**20, whole(1, 2**31 - 1), "largest image, encoded")
    video_max_bytes: int = _setting(64 * 2**20, whole(1, 2**31 - 1), "largest video, encoded")
    image_total_bytes: int = _setting(128 * 2**20, whole(1, 2**31 - 1), "images and videos of a request together")
    image_timeout: float = _setting(10.0, seconds, "time limit for fetching an image or a video")
    image_max_redirects: int = _setting(3, whole(0, 20), "redirects followed for an image URL")
    image_concurrency: int = _setting(8, whole(1, 1_000), "images of one request fetched at once")
    max_images: int = _setting(64, whole(0, 10_000), "images and videos that one request may hold")
    log_level: str = _setting("info", one_of(LEVELS), "critical, error, warning, info or debug")
    log_format: str = _setting("text", one_of(FORMATS), "text, or json: one object per line")
    otlp_endpoint: str | None = _setting(
        None, web_address, "OpenTelemetry collector for traces, such as http://127.0.0.1:4318"
    )

    @classmethod
    def load(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> "Settings":
        """Read flags, then the environment. Raises SettingsError naming the key and the value at fault."""
        flags = vars(_parser().parse_args(arguments))
        values: dict[str, Any] = {}
        for one in fields(cls):
            flag, variable = "--" + one.name.replace("_", "-"), ENV_PREFIX + one.name.upper()
            if flags[one.name] is not None:
                key, raw = flag, ",".join(flags[one.name])
            elif environment.get(variable):
                key, raw = variable, environment[variable]
            else:
                continue
            try:
                values[one.name] = one.metadata["parse"](raw)
            except ValueError as error:
                raise SettingsError(f"{key}={raw!r}: expected {error}") from None
        return cls(**values)

    def __post_init__(self) -> None:
        if not self.served_model_name:
            raise SettingsError("--served-model-name='': expected at least one name")
        if self.metrics_port == self.port:
            raise SettingsError(f"--metrics-port={self.metrics_port}: expected another port than --port")
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, other = ("--tls-key", "--tls-certificate")[:: 1 if self.tls_certificate is None else -1]
            raise SettingsError(f"{given}={self.tls_key or self.tls_certificate}: expected {other} as well")
        if self.response_store is not None and self.response_store_bytes < 8 * self.max_body_bytes:
            # A dialogue takes at most a fourth of the file, and a response repeats parts of its request.
            needed = f"at least 8 times --max-body-bytes={self.max_body_bytes}"
            raise SettingsError(f"--response-store-bytes={self.response_store_bytes}: expected {needed}")


def in_words(default: Any) -> str:
    """A default value for people."""
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, float):
        return f"{default:g} s"
    if isinstance(default, int) and default and default % 2**20 == 0:
        return f"{default // 2**20} MiB"
    return str(default)


# What the help writes for a value, by the parser's name.
_VALUES = {
    **{"switch": "true|false", "whole": "N", "names": "A,B"},
    **{"text": "TEXT", "address": "HOST:PORT", "one_of": "NAME"},
}


# Its unit or kind, by the end of the setting's name.
_UNITS = {
    **dict.fromkeys(("_bytes", "_backlog", "_memory"), "BYTES"),
    **dict.fromkeys(("_file", "_certificate", "tls_key", "_store"), "FILE"),
    **{"_pixels": "PIXELS", "_port": "PORT"},
}


def add_setting(add: Callable[..., Any], name: str, parse: Callable[[str], Any], about: str, default: str) -> None:
    """Add the flag of a setting by argparse's `add_argument`; its value is a list of texts. default: in words."""
    more: dict[str, Any] = {"nargs": "?", "const": "true"} if parse is switch else {}
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)
    if parse in (seconds, seconds_or_zero):
        unit = "SECONDS"
    kind = parse.__qualname__.partition(".")[0]
    about = f"{about} (default: {default})".replace("%", "%%")
    # Every flag may be repeated: a list's values add up, and a scalar given twice is refused by its parser.
    flag = "--" + name.replace("_", "-")
    add(flag, action="append", metavar=unit or _VALUES.get(kind, "VALUE"), help=about, **more)


def add_settings(add: Callable[..., Any], without: Iterable[str] = ()) -> None:
    """Add the flags of all settings but some by argparse's `add_argument`."""
    for one in fields(Settings):
        if one.name not in without:
            add_setting(add, one.name, one.metadata["parse"], one.metadata["about"], in_words(one.default))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="triton-chat frontend",
        usage="triton-chat frontend [OPTION ...]",
        description="Serve the OpenAI API in front of a tritonserver that runs already.",
        epilog="example: triton-chat frontend --triton-url 127.0.0.1:8001 "
        f"(each flag has a variable, as {ENV_PREFIX}PORT)",
    )
    add_settings(parser.add_argument)
    return parser
