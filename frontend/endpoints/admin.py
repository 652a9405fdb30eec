# SPDX-License-Identifier: Apache-2.0
"""/admin/models: loading, unloading and reloading models, which the launcher does.

The launcher listens on a Unix socket; it is asked the same, and answers when it is done.
"""

from typing import Any
from urllib.parse import quote

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from common.errors import RequestError
from frontend.errors import ApiError
from frontend.settings import Settings

router = APIRouter(prefix="/admin/models")

ACTIONS = ("load", "unload", "reload")
# Of the launcher's answer; a model may take as long as it needs to be loaded.
_TIMEOUT = httpx.Timeout(None, connect=5.0)
# The launcher's refusals: status -> the kind of the error.
_REFUSALS = {404: "unknown_model", 409: "conflict"}


@router.get("")
async def list_models(request: Request) -> JSONResponse:
    """Return the models of the launcher, loaded or not, with their states."""
    return await _ask(request, "GET", "/models")


@router.post("/{name}/{action}")
async def change_model(request: Request, name: str, action: str) -> JSONResponse:
    """Load, unload or reload a model; the answer comes once that is done."""
    # Names that are parts of a path would lead to another one.
    if action not in ACTIONS or name in (".", ".."):
        raise ApiError("unknown_path", "There is nothing at this path")
    return await _ask(request, "POST", f"/models/{quote(name, safe='')}/{action}")


async def _ask(request: Request, method: str, path: str) -> JSONResponse:
    """Ask the launcher. Raises ApiError or RequestError if it refuses, fails or is not there."""
    settings: Settings = request.app.state.settings
    if settings.control_socket is None:
        raise RequestError("No launcher controls the models of this server", kind="unavailable")
    transport = httpx.AsyncHTTPTransport(uds=settings.control_socket)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://launcher", timeout=_TIMEOUT) as client:
            answer = await client.request(method, path)
            body: Any = answer.json()
    except (httpx.HTTPError, ValueError):
        raise RequestError("The launcher cannot be reached at the moment", kind="unavailable") from None
    if answer.is_success:
        return JSONResponse(body, headers={"Cache-Control": "no-store"})
    message = body["error"] if isinstance(body, dict) and isinstance(body.get("error"), str) else "The launcher failed"
    if answer.status_code in _REFUSALS:
        raise ApiError(_REFUSALS[answer.status_code], message, param="name")
    if answer.is_client_error:
        raise RequestError(message)
    raise RequestError(message, kind="unavailable" if answer.status_code == 503 else "internal")
