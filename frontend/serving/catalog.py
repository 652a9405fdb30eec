# SPDX-License-Identifier: Apache-2.0
"""The models that this process serves, kept as the launcher or Triton tells, and found by the names in requests."""

import asyncio
import contextlib
import logging
from dataclasses import replace

from common.adapters import Adapter
from common.errors import RequestError
from common.model_names import ENSEMBLE
from common.models_state import DRAINING, FAILED, LOADING, UNLOADED
from common.served_model import CHAT, EMBEDDING
from common.versions import Versions
from frontend.errors import ApiError
from frontend.images import ImageFetcher
from frontend.serving.served_model import RequestedModel, ServedModel
from frontend.settings import Settings
from frontend.telemetry.request_record import current
from frontend.triton.client import TritonClient
from frontend.triton.discovery import Source, States
from frontend.triton.stream import CONNECT_WAIT

logger = logging.getLogger(__name__)

DEFAULT_RETRY = 5  # seconds in Retry-After for a model that is not ready, if the launcher gives no time
_KINDS = {"chat": "answers chats and completions", "embedding": "makes embeddings"}
_STATES = {
    LOADING: "is loading",
    DRAINING: "is being unloaded and takes no new requests",
    FAILED: "failed to load",
}


class Catalog:
    """The served models by their names. Create it in a running event loop, `start` it, and `close` it at the end.

    models: by their names in Triton, unloaded ones included, in the order in which they are told.
    """

    def __init__(self, settings: Settings, triton: TritonClient, images: ImageFetcher, source: Source) -> None:
        self._settings = settings
        self._triton = triton
        self._images = images
        self._source = source
        self._look = asyncio.Event()
        self._known = asyncio.Event()
        self._left_over: set[str] = set()
        self._stopped: set[str] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._names: dict[str, ServedModel] = {}
        self.models: dict[str, ServedModel] = {}
        self._use(source.first)
        triton.connected = self._connected

    def start(self) -> None:
        """Begin to follow what is loaded and unloaded."""
        self._reading = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop following, and monitoring the models."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        await asyncio.gather(*(model.close() for model in self.models.values()))

    @property
    def alone(self) -> ServedModel | None:
        """The one model, if there is only one; requests need not name it."""
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def listed(self) -> list[ServedModel]:
        """Return the models that are loaded and that the current request's key may use."""
        return [model for model in self.models.values() if model.state.ready and _may_use(model)]

    def get(self, name: str) -> ServedModel:
        """Return a model by one of its names, in any state. Raises ApiError if it is unknown, unloaded or forbidden."""
        served = self._names.get(name)
        if served is None or served.state.state == UNLOADED:
            names = ", ".join(name for model in self.listed() for name in model.names)
            raise ApiError("unknown_model", f"The model does not exist; served: {names or 'none'}", param="model")
        if not _may_use(served):
            raise ApiError("model_forbidden", f"This API key may not use the model '{name}'", param="model")
        return served

    def loaded(self, name: str) -> ServedModel:
        """Return a model that takes requests by one of its names. Raises ApiError if there is none, or not now."""
        served = self.get(name)
        _check_ready(served, name)
        return served

    def is_model(self, name: str) -> bool:
        """Whether a name is that of a model, loaded or not, and not of an adapter."""
        return name in self._names

    async def adapters(self) -> list[tuple[ServedModel, Adapter]]:
        """Return the adapters of the loaded models, whoever may use them. What has the name of a model is none."""
        tables = [
            (model, model.deployment.adapters)
            for model in self.models.values()
            if model.kind == CHAT and model.state.ready
        ]
        await asyncio.gather(*(adapters.refresh() for _, adapters in tables))
        found = [(model, adapter) for model, adapters in tables for adapter in adapters.table.values()]
        return [(model, adapter) for model, adapter in found if adapter.name not in self._names]

    async def listed_adapters(self) -> list[tuple[ServedModel, Adapter]]:
        """Return those that the current request's key may use."""
        return [(model, adapter) for model, adapter in await self.adapters() if _may_use(model, adapter)]

    async def find(self, asked: object, kind: str = CHAT) -> RequestedModel:
        """Return the model that a request's `model` names; None or "" means the only one.

        kind: what the endpoint needs. Raises ApiError or RequestError if there is no such model, or not now.
        """
        record, adapter = current(), None
        await self._read_again(asked)
        if not self.models:
            raise ApiError("model_not_ready", "No model is loaded yet", param="model", retry_after=DEFAULT_RETRY)
        if asked is None or asked == "":
            served, name = self._default()
        elif isinstance(asked, str):
            if asked not in self._names:
                record.label = ""
                await self._first_look()
            if asked in self._names or (found := await self._adapter(asked)) is None:
                served, name = self.get(asked), asked
            else:
                (served, adapter), name = found, asked
        else:
            raise RequestError("model: Input should be a valid string", param="model")
        label = served.label if adapter is None else adapter.name
        record.model, record.label = name, label
        if served.kind != kind:
            message = f"The model '{name}' {_KINDS[served.kind]}; this endpoint needs one that {_KINDS[kind]}"
            raise RequestError(message, param="model")
        _check_ready(served, name)
        return RequestedModel(served, name, label, adapter)

    async def versions(self) -> Versions:
        """Return what runs behind this process: behind the first model, if there are several."""
        for model in self.models.values():
            if model.state.ready:
                return await model.deployment.versions()
        return Versions()

    async def _adapter(self, name: str) -> tuple[ServedModel, Adapter] | None:
        """Return the adapter of this name and its model; None if there is none. Raises ApiError if it is forbidden."""
        for model, adapter in await self.adapters():
            if adapter.name == name:
                if not _may_use(model, adapter):
                    raise ApiError("model_forbidden", f"This API key may not use the model '{name}'", param="model")
                return model, adapter
        return None

    def _default(self) -> tuple[ServedModel, str]:
        if self.alone is not None:
            name = self.alone.names[0]
            return self.get(name), name
        names = ", ".join(model.label for model in self.listed())
        raise RequestError(f"'model' is required, as several models are served: {names or 'none now'}", param="model")

    async def _read_again(self, asked: object) -> None:
        """Look into the launcher's file before a request is refused: it may have changed a moment ago."""
        named = self._names.get(asked) if isinstance(asked, str) and asked else self.alone
        if self._source.local and (named is None or not named.state.ready):
            await self._read()

    async def _read(self) -> None:
        if (states := await self._source.read()) is not None:
            self._use(states)
            self._known.set()

    async def _first_look(self) -> None:
        """Wait until it is known what is served, but not long."""
        if not self._known.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_WAIT):
                    await self._known.wait()

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
                await self.versions()  # which logs them after each connection
            except Exception:
                # Of any kind: what is served would never change again.
                logger.exception("the served models could not be read")
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`, in which Python 3.11 may lose the cancellation of `close`.
                async with asyncio.timeout(self._source.period):
                    await self._look.wait()
            self._look.clear()

    def _use(self, states: States) -> None:
        """Serve these models. Those that are not among them any more are unloaded."""
        for name in self.models.keys() - states.keys():
            gone = self.models.pop(name)
            gone.update(replace(gone.state, state=UNLOADED))
            closing = asyncio.create_task(gone.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        for name, state in states.items():
            if name in self.models:
                if self.models[name].state != state:
                    logger.info("model %s: %s", name, state.state)
                    self.models[name].update(state)
                continue
            # A model that is alone in its repository has no name of its own.
            nameless = state.ensemble == ENSEMBLE or (state.engine == EMBEDDING and len(states) == 1)
            self.models[name] = ServedModel(state, self._settings, self._triton, self._images, nameless=nameless)
        self.models = {name: self.models[name] for name in states}
        self._names = {}
        for name, model in self.models.items():
            for alias in model.names:
                if self._names.setdefault(alias, model) is not model:
                    logger.error("the name %s of the model %s is that of another one", alias, name)
        self._stop_left_over()

    def _connected(self) -> None:
        self._stop_left_over()
        self._look.set()

    def _stop_left_over(self) -> None:
        """Stop what an earlier process of this name left in the engines that were loaded when this process began.

        An engine that is loaded later has only requests of this process: a reload has switched to it before this
        process hears of it.
        """
        if not self._known.is_set():
            ready = (model for model in self.models.values() if model.kind == CHAT and model.state.ready)
            self._left_over |= {model.deployment.engine for model in ready} - self._stopped
        if self._triton.stream.is_open:
            for engine in self._left_over:
                self._triton.stream.stop_left_over(engine)
            self._stopped |= self._left_over
            self._left_over = set()


def _may_use(model: ServedModel, adapter: Adapter | None = None) -> bool:
    """Whether the current request's key may use a model, and so its adapters, or this adapter of it.

    A key without a list may use all.
    """
    allowed = current().key_models
    if not allowed or not allowed.isdisjoint(model.names):
        return True
    return adapter is not None and adapter.name in allowed


def _check_ready(model: ServedModel, name: str) -> None:
    """Raise ApiError if a model takes no requests now."""
    state = model.state
    if state.ready:
        return
    message = f"The model '{name}' {_STATES[state.state]}"
    # Why it failed is for operators.
    if state.reason and state.state != FAILED:
        message += f": {state.reason}"
    raise ApiError("model_not_ready", message, param="model", retry_after=state.retry_after or DEFAULT_RETRY)
