# SPDX-License-Identifier: Apache-2.0
"""Load a model again whose process died, by Triton's model repository API, which only the launcher may use."""

import json
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

# The header that Triton's restricted APIs ask for.
KEY_HEADER = "triton-chat-launcher"


def load_model(base_url: str, key: str, model: str, timeout_s: float) -> None:
    """Load a model, even if Triton takes it for loaded; raises OSError with the reason if that fails."""
    connection = HTTPConnection(urlsplit(base_url).netloc, timeout=timeout_s)
    headers: Mapping[str, str] = {KEY_HEADER: key, "Content-Type": "application/json"}
    try:
        connection.request("POST", f"/v2/repository/models/{model}/load", b"{}", dict(headers))
        response = connection.getresponse()
        body = response.read().decode("utf-8", errors="replace")
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(_reason(body))


def _reason(body: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body


class Load:
    """A load in progress on a thread of its own, so that the launcher keeps supervising."""

    def __init__(self, base_url: str, key: str, model: str, timeout_s: float) -> None:
        self.model = model
        self.error: str | None = None
        self._arguments = (base_url, key, model, timeout_s)
        self._thread = threading.Thread(target=self._run, name=f"load-{model}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended; `error` is then the reason of a failure, else None."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            load_model(*self._arguments)
        except OSError as error:
            self.error = str(error) or type(error).__name__
