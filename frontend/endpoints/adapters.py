# SPDX-License-Identifier: Apache-2.0
"""Load and unload LoRA adapters while the server runs, under the paths of vLLM. They need the admin key."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from common.adapters import LOAD, LOAD_PATH, REPLACE, UNLOAD
from common.errors import RequestError
from common.served_model import CHAT
from frontend.errors import ApiError
from frontend.protocol.adapters import LoadAdapterBody, UnloadAdapterBody
from frontend.serving.served_model import ServedModel
from frontend.serving.service import Service

router = APIRouter(prefix="/v1")


@router.post("/load_lora_adapter")
async def load_lora_adapter(request: Request) -> PlainTextResponse:
    """Load an adapter; the answer comes once requests can name it."""
    service: Service = request.app.state.service
    body = LoadAdapterBody.model_validate(await service.admission.read_json(request))
    if service.catalog.is_model(body.lora_name):
        raise RequestError(f"'{body.lora_name}' is the name of a model", param="lora_name")
    change: dict[str, str | bool] = {
        LOAD: body.lora_name,
        LOAD_PATH: body.lora_path,
        REPLACE: body.load_inplace is True,
    }
    model = _model(service, body)
    for other, adapter in await service.catalog.adapters():
        if adapter.name == body.lora_name and other is not model:
            raise RequestError(f"'{body.lora_name}' is an adapter of '{other.label}'", param="lora_name")
    await model.deployment.adapters.change(change)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/unload_lora_adapter")
async def unload_lora_adapter(request: Request) -> PlainTextResponse:
    """Unload an adapter: no new requests get it, those in progress end with it."""
    service: Service = request.app.state.service
    body = UnloadAdapterBody.model_validate(await service.admission.read_json(request))
    model = _model(service, body) if body.base_model_name or service.catalog.alone else None
    for other, adapter in () if model else await service.catalog.adapters():
        if adapter.name == body.lora_name:
            model = other
    if model is None:
        raise RequestError(f"There is no adapter '{body.lora_name}'", kind="not_found", param="lora_name")
    await model.deployment.adapters.change({UNLOAD: body.lora_name})
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _model(service: Service, body: UnloadAdapterBody) -> ServedModel:
    name = body.base_model_name
    try:
        served = service.catalog.loaded(name) if name else service.catalog.alone
    except ApiError as error:
        error.param = "base_model_name"
        raise
    if served is None:
        raise RequestError("'base_model_name' is required, as several models are served", param="base_model_name")
    if served.kind != CHAT:
        raise RequestError(f"The model '{served.label}' makes embeddings and has no adapters", param="base_model_name")
    return served
