# SPDX-License-Identifier: Apache-2.0
"""The progress of a start: models by tritonserver's log, the stack by the frontend's health."""

import json
import re
import ssl
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from common.versions import Versions

_PROBE_TIMEOUT_S = 2.0
# tritonserver opens its endpoints only after every model is loaded; until then only the log shows progress.
_LOADING = re.compile(r"loading: (?P<model>[^\s:\"]+):\d+")
_LOADED = re.compile(r"successfully loaded '(?P<model>[^']+)'")
_FAILED = re.compile(r"(?:failed to load|Poll failed for model directory) '(?P<model>[^']+)'")


def model_states(log_lines: Iterable[str]) -> dict[str, str]:
    """State of each model in the log, "loading", "ready" or "failed", in order of appearance."""
    states: dict[str, str] = {}
    for line in log_lines:
        for pattern, state in ((_LOADING, "loading"), (_LOADED, "ready"), (_FAILED, "failed")):
            found = pattern.search(line)
            if found:
                states[found["model"]] = state
    return states


def answers_ok(url: str) -> bool:
    """Whether GET answers 200 within two seconds."""
    return _get(url) is not None


def served_versions(url: str) -> Versions:
    """The versions that a frontend tells at its base URL; nothing is known if it does not answer."""
    return Versions.from_json(json.loads(_get(f"{url}/version") or "{}"))


def _get(url: str) -> bytes | None:
    """The body of the answer 200 to a GET, if it comes within two seconds.

    Certificates are not checked: the address is our own.
    """
    parts = urlsplit(url)
    connection: HTTPConnection
    if parts.scheme == "https":
        context = ssl._create_unverified_context()  # nosec B323 # asks our own process whether it answers
        connection = HTTPSConnection(parts.netloc, timeout=_PROBE_TIMEOUT_S, context=context)
    else:
        connection = HTTPConnection(parts.netloc, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
