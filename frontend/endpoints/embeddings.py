# SPDX-License-Identifier: Apache-2.0
"""POST /v1/embeddings, /v1/rerank and /v1/score, answered by a model of the kind `embedding`."""

import base64
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request, Response

from common.served_model import EMBEDDING
from frontend.endpoints.own_names import OwnNames
from frontend.errors import translated
from frontend.protocol.embeddings import EmbeddingBody, RerankBody, ScoreBody
from frontend.protocol.refused import REFUSED_IN_EMBEDDINGS, REFUSED_IN_SCORES, refuse
from frontend.serving.admission import AdmittedRequest
from frontend.serving.answer import new_id
from frontend.serving.service import Service
from frontend.telemetry.request_record import triton_request_id
from frontend.triton.embedding import PoolingAnswer, PoolingRequest, decode_pooling, encode_pooling
from frontend.triton.tensors import Delta
from frontend.triton.usage import Usage

router = APIRouter()

# The names that inputs of the Triton model have in a body.
_EMBEDDING_NAMES = {"text_input": "input", "input_ids": "input"}
_RERANK_NAMES = {"text_input": "query", "text_pair": "documents"}
_SCORE_NAMES = {"text_input": "text_1", "text_pair": "text_2"}


@router.post("/v1/embeddings")
async def embeddings(request: Request) -> Response:
    """Embed each input; the answer keeps their order."""
    async with _admit(request, "embeddings") as admitted:
        refuse(admitted.body, REFUSED_IN_EMBEDDINGS)
        body = EmbeddingBody.model_validate(admitted.body)
        asked = PoolingRequest(
            texts=[one for one in body.input if isinstance(one, str)],
            ids=[one for one in body.input if isinstance(one, list)],
            dimensions=body.dimensions,
            truncate_prompt_tokens=body.truncate_prompt_tokens,
        )
        answer = await _pool(admitted, "embd", asked, _EMBEDDING_NAMES)
        rows: list[Any] = list(answer.values)
        if body.encoding_format == "base64":
            rows = [base64.b64encode(row.tobytes()).decode() for row in rows]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        return _json({"object": "list", "data": data, "model": admitted.model.name, "usage": _usage(answer)})


@router.post("/v1/rerank")
@router.post("/v2/rerank")
@router.post("/rerank")
async def rerank(request: Request) -> Response:
    """Sort documents by their relevance for a query, the most relevant first."""
    async with _admit(request, "rerank") as admitted:
        refuse(admitted.body, REFUSED_IN_SCORES)
        body = RerankBody.model_validate(admitted.body)
        asked = PoolingRequest(
            texts=[body.query], pairs=body.documents, truncate_prompt_tokens=body.truncate_prompt_tokens
        )
        answer = await _pool(admitted, "rerank", asked, _RERANK_NAMES)
        best = _descending(answer.values)[: body.top_n or None]
        results: list[dict[str, Any]] = []
        for index in best:
            shown = {} if body.return_documents is False else {"document": {"text": body.documents[index]}}
            results.append({"index": index, **shown, "relevance_score": float(answer.values[index])})
        answered = {"id": new_id("rerank"), "model": admitted.model.name, "usage": _usage(answer), "results": results}
        return _json(answered)


@router.post("/v1/score")
@router.post("/score")
async def score(request: Request) -> Response:
    """Score each pair; the answer keeps their order."""
    async with _admit(request, "score") as admitted:
        refuse(admitted.body, REFUSED_IN_SCORES)
        body = ScoreBody.model_validate(admitted.body)
        asked = PoolingRequest(texts=body.text_1, pairs=body.text_2, truncate_prompt_tokens=body.truncate_prompt_tokens)
        answer = await _pool(admitted, "score", asked, _SCORE_NAMES)
        data = [{"object": "score", "index": index, "score": float(one)} for index, one in enumerate(answer.values)]
        head = {"id": new_id("score"), "object": "list", "created": int(time.time()), "model": admitted.model.name}
        return _json(head | {"data": data, "usage": _usage(answer)})


@asynccontextmanager
async def _admit(request: Request, endpoint: str) -> AsyncIterator[AdmittedRequest]:
    """Admit a request to an embedding model. A disconnect or the deadline interrupts the code in the context."""
    service: Service = request.app.state.service
    async with service.admission.admit(request, endpoint, EMBEDDING) as admitted, admitted.cancel_scope.cancellable():
        yield admitted


async def _pool(
    admitted: AdmittedRequest, prefix: str, asked: PoolingRequest, names: Mapping[str, str]
) -> PoolingAnswer:
    """Ask the model. names: an input of Triton -> the body's field, for errors."""
    served = admitted.model.served
    deployment = served.deployment
    # Not to the ensemble of several models: Triton passes no cancellation on to its step.
    request = encode_pooling(asked, deployment.engine, triton_request_id(new_id(prefix)))
    with translated(OwnNames(names).own):
        answer = decode_pooling(await deployment.infer(request, served.settings.request_timeout))
    admitted.metrics.usage = usage = Usage(per_prompt=1)
    usage.add(0, Delta(prompt_tokens=answer.prompt_tokens))
    return answer


def _descending(scores: npt.NDArray[np.float32]) -> list[int]:
    """The positions of the scores, the greatest first; of equal ones the first."""
    positions: list[int] = np.argsort(-scores, kind="stable").tolist()
    return positions


def _usage(answer: PoolingAnswer) -> dict[str, int]:
    return {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens}


def _json(body: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
