# SPDX-License-Identifier: Apache-2.0
"""Liveness, readiness, version and metrics."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from common.models_state import READY
from common.versions import Versions
from frontend import __version__
from frontend.serving.served_model import ServedModel
from frontend.serving.service import Service
from frontend.telemetry.exposition import exposition, load_exposition

router = APIRouter()

# A cache between a client and this server may otherwise keep an answer as long as it sees fit.
_NO_STORE = {"Cache-Control": "no-store"}
_METRICS = {"Content-Type": CONTENT_TYPE_LATEST} | _NO_STORE


@router.get("/health/live")
async def live() -> JSONResponse:
    """Return 200: this process serves HTTP, whatever the state of Triton."""
    return JSONResponse({"status": "live"}, headers=_NO_STORE)


@router.get("/health")
@router.get("/health/ready")
async def ready(request: Request, model: str | None = None) -> JSONResponse:
    """Return 200 if this server can serve, else 503; the body names what cannot.

    One model can serve if Triton and all of its Triton models can. Of several models one is enough, so that one that
    fails or loads does not take the others from their clients. model: the name of one, to ask for this one only.
    """
    service: Service = request.app.state.service
    chosen = service.catalog.alone if model is None else service.catalog.get(model)
    asked = list(service.catalog.models.values()) if chosen is None else [chosen]
    server, answers = await asyncio.gather(
        service.triton.server_ready(), asyncio.gather(*(one.readiness() for one in asked))
    )
    parts = {"triton": server}
    for answer in answers:
        parts |= answer
    missing = [name for name, is_ready in parts.items() if not is_ready]
    serving = server and any(answer and all(answer.values()) for answer in answers)
    if service.admission.stopping:
        missing.append("frontend")
        serving = False
    body: dict[str, Any] = {"status": "ready" if serving else "not ready", "not_ready": missing, "parts": parts}
    if model is not None or chosen is None:
        body["models"] = {one.label: _state(one, answer) for one, answer in zip(asked, answers, strict=True)}
    return JSONResponse(body, status_code=200 if serving else 503, headers=_NO_STORE)


def _state(model: ServedModel, readiness: dict[str, bool]) -> str:
    """Return a model's state as the launcher or Triton tells it, or that it does not answer although it is loaded."""
    state = model.state.state
    return "not ready" if state == READY and not all(readiness.values()) else state


@router.get("/version")
async def version(request: Request) -> JSONResponse:
    """Return this server's version, and what is known of the engine, Triton, CUDA and the GPUs."""
    return JSONResponse({"version": __version__, **asdict(await _versions(request))}, headers=_NO_STORE)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return all metrics of the frontends, and the engines' load under vLLM's names."""
    versions, engines = await asyncio.gather(_versions(request), _engines(request))
    return Response(exposition(versions, engines), headers=_METRICS)


@router.get("/metrics/vllm")
async def load(request: Request) -> Response:
    """Return only what endpoint pickers read, for those that read it many times a second."""
    return Response(load_exposition(await _engines(request)), headers=_METRICS)


async def _engines(request: Request) -> Mapping[str, Mapping[str, Any]]:
    """Return each engine's statistics by the name of its model."""
    service: Service = request.app.state.service
    models = [model for model in service.catalog.models.values() if model.state.ready]
    told = await asyncio.gather(*(model.deployment.statistics() for model in models))
    return dict(zip((model.label for model in models), told, strict=True))


async def _versions(request: Request) -> Versions:
    service: Service = request.app.state.service
    return await service.catalog.versions()
