# SPDX-License-Identifier: Apache-2.0
"""Triton's model repository API, which loads and unloads models, and which only the launcher may use."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from common.models_state import KEY_HEADER
from scripts.shared.errors import CommandError

# The variable with its value, for operators who use these APIs themselves; without it the launcher makes one up.
KEY_VARIABLE = "TRITON_CHAT_REPOSITORY_KEY"
# How long Triton may take for an answer that needs no model.
_QUICK_S = 20.0
# States of a Triton model in the index; others are those of models that are going, or were never loaded.
READY, UNLOADING = "READY", "UNLOADING"


def load_model(base_url: str, key: str, model: str, timeout_s: float) -> None:
    """Load a model, or again one whose files have changed; raises OSError with the reason if that fails."""
    _ask(base_url, key, "POST", f"repository/models/{model}/load", timeout_s)


def load_again(base_url: str, key: str, model: str, timeout_s: float) -> None:
    """Load a model again that has lost a process; raises OSError with the reason if that fails.

    Triton 2.51 takes it for loaded still, and does nothing unless its files or its config have changed. So the config
    gets a parameter that nobody reads.
    """
    config = _ask(base_url, key, "GET", f"models/{model}/config", _QUICK_S)
    config.setdefault("parameters", {})["loaded_again"] = {"string_value": str(time.time_ns())}
    changed = {"parameters": {"config": json.dumps(config)}}
    _ask(base_url, key, "POST", f"repository/models/{model}/load", timeout_s, changed)


def http_answer(
    url: str,
    timeout_s: float,
    *,
    method: str = "GET",
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """The status and the text of tritonserver's answer; raises OSError if there is none."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request(method, parts.path, content, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", errors="replace")
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _ask(
    base_url: str, key: str, method: str, path: str, timeout_s: float, body: Mapping[str, Any] | None = None
) -> Any:
    """The JSON answer of Triton, None if it is empty; raises OSError with the reason if it is no success."""
    headers = {KEY_HEADER: key, "Content-Type": "application/json"}
    content = json.dumps(body or {}).encode()
    status, text = http_answer(f"{base_url}/v2/{path}", timeout_s, method=method, content=content, headers=headers)
    if status != 200:
        raise OSError(_reason(text))
    return json.loads(text) if text else None


def _reason(body: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body


class Call:
    """A call in progress on a thread of its own, so that the launcher keeps supervising. name: of the thread."""

    def __init__(self, run: Callable[[], Any], name: str) -> None:
        self.error: str | None = None
        self.result: Any = None
        self._call = run
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended; `error` is then the reason of a failure, else None."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except (OSError, ValueError, CommandError) as error:
            self.error = str(error) or type(error).__name__
        except Exception as error:
            # Whoever waits would take it for done.
            self.error = f"{type(error).__name__}: {error}"


class Load(Call):
    """The load of one model in progress. again: it has lost a process, and Triton takes it for loaded."""

    def __init__(self, base_url: str, key: str, model: str, timeout_s: float, *, again: bool = False) -> None:
        self.model = model
        load = load_again if again else load_model
        super().__init__(lambda: load(base_url, key, model, timeout_s), f"load-{model}")


class Repository:
    """The models that a tritonserver knows. load_timeout_s: the longest that one load may take."""

    def __init__(self, base_url: str, key: str, load_timeout_s: float) -> None:
        self._base_url, self._key, self._load_timeout_s = base_url, key, load_timeout_s

    def load(self, model: str) -> Load:
        """Begin to load a model, or an ensemble whose config points at other steps now."""
        return Load(self._base_url, self._key, model, self._load_timeout_s)

    def unload(self, model: str) -> Call:
        """Begin to unload a model. That call is short: Triton lets its running requests end first."""
        return Call(
            lambda: _ask(self._base_url, self._key, "POST", f"repository/models/{model}/unload", _QUICK_S),
            f"unload-{model}",
        )

    def index(self) -> Call:
        """Ask for the state of every Triton model by name, as the call's result; "" if it was never loaded."""
        return Call(lambda: _states(_ask(self._base_url, self._key, "POST", "repository/index", _QUICK_S)), "index")


def _states(index: Any) -> dict[str, str]:
    return {model["name"]: model.get("state", "") for model in index}
