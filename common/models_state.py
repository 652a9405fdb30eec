# SPDX-License-Identifier: Apache-2.0
"""The state file: what the launcher tells the frontends of the models that it loads and unloads.

The launcher writes it whenever something changes; the frontends read it when its modification time changes.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.served_model import ServedModelInfo

# The environment variable of the frontends with the file's path; not set if there is one model only.
VARIABLE = "TRITON_CHAT_MODELS_STATE"
LOADING, READY, DRAINING, UNLOADED, FAILED = "loading", "ready", "draining", "unloaded", "failed"
# The header that a launcher's Triton asks for before it tells of its models, or loads and unloads them.
KEY_HEADER = "triton-chat-launcher"
STATES = (LOADING, READY, DRAINING, UNLOADED, FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """One served model.

    reason: why it is not ready, for people; None if there is nothing to say. retry_after: seconds after which a
    refused client may try again. ensemble: the Triton model that serves it. engine: the one with its network; of an
    embedding model that is served alone it is the same.
    """

    state: str
    ensemble: str
    engine: str
    info: ServedModelInfo = field(default_factory=ServedModelInfo)
    reason: str | None = None
    retry_after: int | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.state == READY


def write_states(path: Path, models: Mapping[str, ModelState]) -> None:
    """Replace the file at once, so that a reader sees the old one or the new one, never a part. The order is kept."""
    found = {name: {**asdict(model), "info": json.loads(model.info.to_json())} for name, model in models.items()}
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"models": found}, file)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_states(path: Path) -> dict[str, ModelState]:
    """Read the models by their served names. Raises OSError without such a file, ValueError if it is no state file."""
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
        return {name: _read(model) for name, model in models.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of models' states: {type(error).__name__}: {error}") from error


def _read(model: Mapping[str, object]) -> ModelState:
    values = dict(model)
    if values["state"] not in STATES:
        raise ValueError(f"unknown state {values['state']!r} of a model; known: {', '.join(STATES)}")
    values["info"] = ServedModelInfo.from_json(json.dumps(values.get("info") or {}))
    return ModelState(**values)  # type: ignore[arg-type] # the launcher of the same release wrote them
