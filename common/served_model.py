# SPDX-License-Identifier: Apache-2.0
"""What the launcher tells frontends of a model: a JSON text in the parameter `served_model` of its Triton config.

A Triton model with this parameter is one of ours. `{}` leaves everything to the settings of the frontend.
"""

import json
from dataclasses import asdict, dataclass, fields

PARAMETER = "served_model"
CHAT, EMBEDDING = "chat", "embedding"
KINDS = (CHAT, EMBEDDING)
MODALITIES = ("text", "image", "video")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModelInfo:
    """A model as clients see it. What is None or empty is the frontend's setting of that name.

    names: the name that answers carry, then the aliases. kind: "chat" for text generation, or "embedding".
    max_model_len: context length in tokens. modalities: what prompts may hold, of MODALITIES.
    max_in_flight, max_queued: requests, per frontend process. queue_timeout, request_timeout: seconds.
    """

    names: tuple[str, ...] = ()
    kind: str = CHAT
    max_model_len: int | None = None
    modalities: tuple[str, ...] = ()
    enable_thinking: bool | None = None
    inline_reasoning: bool | None = None
    trust_request_chat_template: bool | None = None
    max_in_flight: int | None = None
    max_queued: int | None = None
    queue_timeout: float | None = None
    request_timeout: float | None = None

    @classmethod
    def from_json(cls, text: str) -> "ServedModelInfo":
        """Read the parameter's value; what is unknown is left out.

        Raises ValueError if it is no JSON object, or if names, modalities or the kind cannot be used.
        """
        found = json.loads(text or "{}")
        if not isinstance(found, dict):
            raise ValueError(f"the parameter {PARAMETER} must be a JSON object, not {text!r}")
        known = {one.name for one in fields(cls)}
        values = {name: value for name, value in found.items() if name in known and value is not None}
        for name in ("names", "modalities"):
            if not all(isinstance(item, str) for item in values.get(name, ())):
                raise ValueError(f"the parameter {PARAMETER} has {name} that are no texts: {text!r}")
            values[name] = tuple(values.get(name, ()))
        if values.get("kind", CHAT) not in KINDS:
            raise ValueError(f"the parameter {PARAMETER} has the kind {values['kind']!r}, which is none of {KINDS}")
        return cls(**values)

    def to_json(self) -> str:
        """Write the parameter's value."""
        return json.dumps({name: value for name, value in asdict(self).items() if value not in (None, ())})
