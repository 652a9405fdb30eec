# SPDX-License-Identifier: Apache-2.0
"""How every request comes in: admitted, read, and given a place when it is its turn."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from common.errors import RequestError
from frontend.errors import ApiError, ClientGone
from frontend.serving.cancel_scope import CancelScope
from frontend.serving.service import Service
from frontend.telemetry.metrics import RequestMetrics


@dataclass(frozen=True, slots=True)
class Visit:
    """An admitted request. body: the JSON object that it sent."""

    body: dict[str, Any]
    metrics: RequestMetrics
    cancel_scope: CancelScope


@asynccontextmanager
async def visiting(request: Request, endpoint: str) -> AsyncIterator[Visit]:
    """Holds a place until the request has ended. Its deadline and its client's leaving count from here.

    Raises ApiError where there is no place, RequestError where the request cannot be read.
    """
    service: Service = request.app.state.service
    with service.admit(endpoint) as metrics, service.cancel_scope(_timeout(request, service)) as cancel_scope:
        async with cancel_scope.guard():
            body = await _read_json(request, service.settings.body_timeout)
            cancel_scope.cancel_on_disconnect(request)
            await service.admission.acquire()
        try:
            yield Visit(body, metrics, cancel_scope)
        finally:
            service.admission.release()


async def _read_json(request: Request, timeout: float) -> dict[str, Any]:
    """The request's body. Raises RequestError where it is no JSON object."""
    try:
        async with asyncio.timeout(timeout):
            data = await request.body()
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise ApiError("slow_request", f"The request's body did not come in within {timeout:g} s") from None
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise RequestError("The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise RequestError("The request body must be a JSON object")
    return body


def _timeout(request: Request, service: Service) -> float:
    """Seconds this request may take; X-Request-Timeout may shorten them."""
    longest = service.settings.request_timeout
    header = request.headers.get("x-request-timeout")
    if header is None:
        return longest
    try:
        asked = float(header)
    except ValueError:
        asked = math.nan
    if not 0 < asked < math.inf:
        raise RequestError("X-Request-Timeout must be a number of seconds above 0", param="X-Request-Timeout")
    return min(asked, longest)
