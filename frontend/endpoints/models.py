# SPDX-License-Identifier: Apache-2.0
"""GET /v1/models: the names under which the one model is served."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from frontend.serving.service import Service

router = APIRouter(prefix="/v1/models")


@router.get("")
async def list_models(request: Request) -> JSONResponse:
    names = request.app.state.service.settings.served_model_name
    return JSONResponse({"object": "list", "data": [_model(request, name) for name in names]})


@router.get("/{name:path}")
async def get_model(request: Request, name: str) -> JSONResponse:
    service: Service = request.app.state.service
    return JSONResponse(_model(request, service.model_name(name)))


def _model(request: Request, name: str) -> dict[str, Any]:
    service: Service = request.app.state.service
    return {
        "id": name,
        "object": "model",
        "created": request.app.state.started,
        "owned_by": "triton-chat",
        "root": service.settings.served_model_name[0],
        "parent": None,
        "max_model_len": service.settings.max_model_len,
    }
