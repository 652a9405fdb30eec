# SPDX-License-Identifier: Apache-2.0
"""Which models are served: as the launcher's state file says, or, without one, as Triton's repository shows.

In Triton's repository a model is one of ours if its config has the parameter `served_model`. Not every server has an
index, and some refuse it; what is served then is one model with the fixed names.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import grpc

from common import served_model
from common.errors import RequestError
from common.files import file_version
from common.model_names import EMBEDDING, ENGINE, ENGINES, ENSEMBLE, STEPS, owner, role
from common.models_state import DRAINING, FAILED, LOADING, READY, UNLOADED, ModelState, read_states
from common.served_model import PARAMETER, ServedModelInfo
from frontend.triton.client import TritonClient

logger = logging.getLogger(__name__)

# The models by their names in Triton.
States = Mapping[str, ModelState]
# One model, which no launcher and no index tells of.
ONE_MODEL: States = {ENSEMBLE: ModelState(state=READY, ensemble=ENSEMBLE, engine=ENGINE)}
# Triton's states of a model that is not ready. One that is "UNAVAILABLE" was unloaded, or failed to load.
_STATES = {"LOADING": LOADING, "UNLOADING": DRAINING}
_UNLOADED = "unloaded"  # Triton's reason
_REFUSED = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)
_RESTRICTED = "is restricted"  # as UNAVAILABLE, by a Triton that asks for a key


class Source(Protocol):
    """Where the models are read from.

    period: seconds between two readings. local: reading takes no call. first: the models before the first reading.
    """

    period: float
    local: bool
    first: States

    async def read(self) -> States | None:
        """Return the models; None if nothing has changed, or nothing can be known now."""


class StateFile:
    """The file in which the launcher writes what it loads and unloads."""

    period = 0.5
    local = True

    def __init__(self, path: Path) -> None:
        self.first: States = {}
        self._path = path
        self._version: tuple[int, ...] | None = None
        self._broken = False

    async def read(self) -> States | None:
        """Return the models if the file has changed; one that cannot be read changes nothing."""
        try:
            version = file_version(self._path)
            if version == self._version:
                return None
            states = read_states(self._path)
        except (OSError, ValueError) as error:
            if not self._broken:
                logger.error("%s: the models stay as they were: %s", self._path, error)
            self._broken = True
            return None
        self._version, self._broken = version, False
        return states


class TritonIndex:
    """Triton's own index of its repository, and the configs of the models in it."""

    period = 1.0
    local = False

    def __init__(self, triton: TritonClient) -> None:
        self.first: States = ONE_MODEL
        self._triton = triton
        self._found: dict[str, ModelState] = {}
        self._refused_by = 0  # the connection whose server refused the index

    async def read(self) -> States | None:
        """Return the models that are or were loaded in Triton."""
        connections = self._triton.stream.connections
        if not self._triton.stream.is_open or self._refused_by == connections:
            return None
        try:
            index = await self._triton.index()
        except grpc.aio.AioRpcError as error:
            logger.debug("Triton gave no index: %s %s", error.code().name, error.details())
            if error.code() not in _REFUSED and _RESTRICTED not in (error.details() or ""):
                return None
            logger.info("Triton gives no index of its models: one model is served, by the fixed names")
            self._refused_by = connections
            return ONE_MODEL
        entries = {entry.name: entry for entry in sorted(index, key=lambda one: bool(one.state == "READY"))}
        for name, entry in entries.items():
            if entry.state == "READY" and role(name) not in STEPS:
                await self._read_config(name)
        found = {**self._loading(entries), **{name: self._now(one, entries) for name, one in self._found.items()}}
        return dict(sorted(found.items())) or ONE_MODEL

    async def _read_config(self, name: str) -> None:
        """Read what a loaded model's config says, if it is one of ours."""
        try:
            config = await self._triton.config(name)
            if PARAMETER not in config.parameters:
                return
            info = ServedModelInfo.from_json(config.parameters[PARAMETER].string_value)
        except (RequestError, ValueError) as error:
            logger.error("model %s is left as it was: %s", name, error)
            return
        # An embedding model that is alone is no ensemble.
        engine = _engine(config) or (name if info.kind == served_model.EMBEDDING else None)
        if engine is None:
            logger.error("model %s has no step '%s'", name, ENGINE)
            return
        self._found[name] = ModelState(state=READY, ensemble=name, engine=engine, info=info)

    def _now(self, found: ModelState, entries: Mapping[str, Any]) -> ModelState:
        """Return a known model with its present state."""
        entry = entries.get(found.ensemble)
        # Of the only model Triton's own errors say what it lacks.
        alone = found.ensemble == ENSEMBLE and len(self._found) == 1
        if alone or (entry is not None and entry.state == "READY"):
            return found
        return ModelState(
            state=_state(entry),
            ensemble=found.ensemble,
            engine=found.engine,
            info=found.info,
        )

    def _loading(self, entries: Mapping[str, Any]) -> dict[str, ModelState]:
        """Return the models that are loaded for the first time, of which only the names of their steps are known."""
        engines = {owner(name): name for name in entries if role(name) in ENGINES}
        return {
            name: ModelState(state=LOADING, ensemble=name, engine=engine, info=_info_of(engine))
            for name, entry in entries.items()
            if entry.state == "LOADING" and (engine := engines.get(name)) is not None
        }


def _engine(config: Any) -> str | None:
    """Return the name of an ensemble's engine."""
    steps = [one.model_name for one in config.ensemble_scheduling.step]
    return next((name for name in steps if role(name) in ENGINES), None)


def _info_of(engine: str) -> ServedModelInfo:
    """Return what the name of an engine tells of its model."""
    return ServedModelInfo(kind=served_model.EMBEDDING) if role(engine) == EMBEDDING else ServedModelInfo()


def _state(entry: Any) -> str:
    if entry is None or (entry.state not in _STATES and entry.reason == _UNLOADED):
        return UNLOADED
    return _STATES.get(entry.state, FAILED)
