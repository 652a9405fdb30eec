# SPDX-License-Identifier: Apache-2.0
"""GET /v1/models: the loaded models, under each of their names."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from common.adapters import Adapter
from frontend.serving.served_model import ServedModel
from frontend.serving.service import Service

router = APIRouter(prefix="/v1/models")


@router.get("")
async def list_models(request: Request) -> JSONResponse:
    """Return the models that are loaded and that the request's key may use."""
    service: Service = request.app.state.service
    data = [await _model(request, model, name) for model in service.catalog.listed() for name in model.names]
    data += [await _adapter(request, model, adapter) for model, adapter in await service.catalog.listed_adapters()]
    return JSONResponse({"object": "list", "data": data})


@router.get("/{name:path}")
async def get_model(request: Request, name: str) -> JSONResponse:
    """Return one of them."""
    service: Service = request.app.state.service
    for model, adapter in () if service.catalog.is_model(name) else await service.catalog.listed_adapters():
        if adapter.name == name:
            return JSONResponse(await _adapter(request, model, adapter))
    return JSONResponse(await _model(request, service.catalog.loaded(name), name))


async def _model(request: Request, model: ServedModel, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": request.app.state.started,
        "owned_by": "triton-chat",
        "root": model.names[0],
        "parent": None,
        "max_model_len": await model.context_length(),
        "kind": model.kind,
        "aliases": [other for other in model.names if other != name],
        "modalities": list(model.settings.modalities) or None,
    }


async def _adapter(request: Request, model: ServedModel, adapter: Adapter) -> dict[str, Any]:
    """Return a LoRA adapter as one more model. Triton clients choose it by `lora_task_id`."""
    own = {"id": adapter.name, "root": adapter.name, "parent": model.label, "aliases": []}
    return await _model(request, model, model.label) | own | {"lora_task_id": adapter.id}
