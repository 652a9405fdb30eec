# SPDX-License-Identifier: Apache-2.0
"""The application: routes, middleware, error handlers, and the objects that live as long as the process."""

import logging
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from common.errors import RequestError
from frontend import __version__
from frontend.auth.authenticator import Authenticator
from frontend.auth.gate import Gate
from frontend.endpoints import adapters, admin, embeddings, health, models, openapi, stored_responses, tokenization
from frontend.endpoints.chat import plan_chat
from frontend.endpoints.completions import plan_completion
from frontend.endpoints.messages import router as messages_router
from frontend.endpoints.responses import plan_response
from frontend.errors import ApiError, ClientGone, error_response
from frontend.serving.answer import answer
from frontend.serving.response_store import ResponseStore
from frontend.serving.service import Service
from frontend.settings import Settings
from frontend.telemetry.access_log import AccessLog
from frontend.telemetry.metrics_port import MetricsPort
from frontend.telemetry.request_record import current
from frontend.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Build the application. Raises SettingsError if a file of the settings cannot be used."""
    tracing = Tracing.configured(settings.otlp_endpoint)
    store = ResponseStore.configured(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # gRPC's channel belongs to the running event loop, so the service is created here.
        app.state.service = service = Service(settings)
        app.state.started = int(time.time())
        service.start()
        if store is not None:
            store.start()
        try:
            yield
        finally:
            await service.close()
            if store is not None:
                await store.close()
            if tracing is not None:
                await tracing.close()

    # The routes parse bodies themselves, so FastAPI cannot derive the OpenAPI document; endpoints/openapi.py has it.
    app = FastAPI(title="Triton Chat", version=__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.settings = settings
    app.state.response_store = store
    # Starlette's routes: FastAPI's would look for dependencies, of which these have none, for each request.
    app.add_route("/v1/chat/completions", chat_completions, methods=["POST"])
    app.add_route("/v1/completions", completions, methods=["POST"])
    app.add_route("/v1/responses", responses, methods=["POST"])
    for router in (messages_router, embeddings.router, models.router, tokenization.router, health.router):
        app.include_router(router)
    for router in (admin.router, adapters.router, openapi.router, stored_responses.router):
        app.include_router(router)
    _add_head(app)
    for kind in (RequestError, ApiError, ClientGone, ValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _error_response)
    if settings.metrics_port is not None:
        # Inside of Gate, which normalises the path.
        app.add_middleware(MetricsPort, port=settings.metrics_port)
    app.add_middleware(Gate, max_body_bytes=settings.max_body_bytes, authenticator=Authenticator(settings))
    if settings.cors_allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allow_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Request-Id", "Retry-After", "Server-Timing"],
        )
    # Added last, so that it is the outermost.
    app.add_middleware(AccessLog, tracing=tracing, respond=_error_response)
    return app


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions."""
    return await answer(request, "chat", plan_chat)


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    return await answer(request, "completions", plan_completion)


async def responses(request: Request) -> Response:
    """POST /v1/responses."""
    return await answer(request, "responses", partial(plan_response, request.app.state.response_store))


def _add_head(app: FastAPI) -> None:
    """Let each path that takes GET take HEAD too, whose body uvicorn leaves out. FastAPI does not."""
    for route in app.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods:
            route.methods.add("HEAD")


async def _error_response(request: Request, error: Exception) -> Response:
    """Note why the request failed, log what is our fault, and make the response."""
    if isinstance(error, HTTPException):
        if request.method == "OPTIONS" and error.status_code == 405:
            return Response(status_code=204, headers={"Allow": _allowed(error)})
        error = _routing_error(error)
    current().fail(error)
    response = error_response(error, request.scope)
    if response.status_code == 500:
        unforeseen = error if not isinstance(error, RequestError) else None
        logger.error("a request failed: %s", "unforeseen" if unforeseen else error, exc_info=unforeseen)
    _forget_locals(error)
    return response


def _forget_locals(error: BaseException | None) -> None:
    """Let go of what the functions held that an error has left.

    What raised it may still refer to it, such as a request's queue of responses: until the garbage collector came by,
    minutes later, such a circle would keep the request's body and pictures.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _routing_error(error: HTTPException) -> Exception:
    """Turn an error of Starlette's router into one of ours."""
    if error.status_code == 404:
        return ApiError("unknown_path", "There is nothing at this path")
    if error.status_code == 405:
        return ApiError("method", "This path does not take this method", allow=_allowed(error))
    return RequestError("The request could not be read")


def _allowed(error: HTTPException) -> str:
    """Return the value of Allow: the path's methods, which the router has noted in its error."""
    methods = (error.headers or {})["Allow"].split(", ")
    return ", ".join(sorted({*methods, "OPTIONS"}))
