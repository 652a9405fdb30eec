# SPDX-License-Identifier: Apache-2.0
"""POST /tokenize and /detokenize, answered by the models `preprocessing` and `postprocessing`."""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.endpoints.chat import prompt_json
from frontend.protocol.messages import clean_messages
from frontend.protocol.refused import REFUSED_IN_TOKENIZE, refuse
from frontend.protocol.tokenize import DetokenizeBody, TokenizeChatBody, TokenizeTextBody
from frontend.serving.request_memory import HeldMemory
from frontend.serving.served_model import ServedModel
from frontend.serving.service import Service

router = APIRouter()

# Ids, and their texts if these are requested.
_Tokens = tuple[list[int], list[str] | None]


@router.post("/tokenize")
async def tokenize(request: Request) -> Response:
    service: Service = request.app.state.service
    async with service.admission.admit(request, "tokenize") as admitted, admitted.cancel_scope.cancellable():
        raw, served, memory = admitted.body, admitted.model.served, admitted.memory
        tokens = tokenize_chat if "messages" in raw else _tokenize_text
        ids, token_strs = await tokens(served, raw, memory)
        body: dict[str, Any] = {"count": len(ids), "max_model_len": served.settings.max_model_len, "tokens": ids}
        if token_strs is not None:
            body["token_strs"] = token_strs
        return Response(orjson.dumps(body), media_type="application/json")


@router.post("/detokenize")
async def detokenize(request: Request) -> Response:
    service: Service = request.app.state.service
    async with service.admission.admit(request, "detokenize") as admitted, admitted.cancel_scope.cancellable():
        body = DetokenizeBody.model_validate(admitted.body)
        text = await admitted.model.served.detokenize(body.tokens)
        return Response(orjson.dumps({"prompt": text}), media_type="application/json")


async def _tokenize_text(served: ServedModel, raw: dict[str, Any], memory: HeldMemory) -> _Tokens:
    body = TokenizeTextBody.model_validate(raw)
    return await served.tokenize(
        text=body.prompt,
        memory=memory,
        add_special_tokens=body.add_special_tokens,
        token_strs=body.return_token_strs is True,
    )


async def tokenize_chat(served: ServedModel, raw: dict[str, Any], memory: HeldMemory) -> _Tokens:
    """Return the ids of a chat's prompt, and their texts if the body requests them. raw: a TokenizeChatBody."""
    refuse(raw, REFUSED_IN_TOKENIZE, trust_chat_template=served.settings.trust_request_chat_template)
    body = TokenizeChatBody.model_validate(raw)
    messages, urls = clean_messages(body.messages)
    thinking = body.thinks(served.settings.enable_thinking)
    prompt = prompt_json(body, messages, thinking, raw)
    return await served.tokenize(
        messages=prompt,
        memory=memory,
        image_urls=urls,
        add_special_tokens=body.add_special_tokens,
        token_strs=body.return_token_strs is True,
    )
