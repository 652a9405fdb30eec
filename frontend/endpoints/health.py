# SPDX-License-Identifier: Apache-2.0
"""Liveness, readiness, version and metrics."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from common.versions import Versions
from frontend import __version__
from frontend.serving.service import Service
from frontend.telemetry.metrics import exposition

router = APIRouter()

# A cache between a client and this server may otherwise keep an answer as long as it sees fit.
_NO_STORE = {"Cache-Control": "no-store"}


@router.get("/health/live")
async def live() -> JSONResponse:
    """Return 200: this process serves HTTP, whatever the state of Triton."""
    return JSONResponse({"status": "live"}, headers=_NO_STORE)


@router.get("/health")
@router.get("/health/ready")
async def ready(request: Request) -> JSONResponse:
    """Return 200 if Triton and all of its models can serve, else 503 naming those that cannot."""
    service: Service = request.app.state.service
    parts = await service.triton.readiness()
    missing = [name for name, is_ready in parts.items() if not is_ready]
    if service.admission.draining:
        missing.append("frontend")
    status = "not ready" if missing else "ready"
    body = {"status": status, "not_ready": missing, "parts": parts}
    return JSONResponse(body, status_code=503 if missing else 200, headers=_NO_STORE)


@router.get("/version")
async def version(request: Request) -> JSONResponse:
    """Return this server's version, and what is known of the engine, Triton, CUDA and the GPUs."""
    return JSONResponse({"version": __version__, **asdict(await _versions(request))}, headers=_NO_STORE)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    return Response(exposition(await _versions(request)), headers={"Content-Type": CONTENT_TYPE_LATEST} | _NO_STORE)


async def _versions(request: Request) -> Versions:
    service: Service = request.app.state.service
    return await service.triton.versions()
