# SPDX-License-Identifier: Apache-2.0
"""Errors about a converted request, written with the names that its fields have in the client's body."""

import re
from collections.abc import Mapping

from pydantic import ValidationError

from common.errors import RequestError
from frontend.errors import describe
from frontend.protocol.common import GenerationBody

# A field or a position in it, such as "messages[2].content".
_POSITION = re.compile(r"(?<![\w.\]])[a-z_]+(?:\.\w+|\[\d+\])*")


# Bytes that the position of a message or of a part takes at most, of which the names are made.
PLACE = 400


class OwnNames:
    """Translates positions in a converted request to those in the body that it was made of."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """Translate by the longest name that a position begins with.

        names: a field or a position in the converted request -> the same in the client's body.
        """
        self._names = names

    def own(self, error: RequestError | ValidationError) -> RequestError:
        """Return an error of the client with translated positions, in its message too; faults of ours are unchanged."""
        if isinstance(error, RequestError) and error.kind not in ("invalid_request", "context_length"):
            return error
        _, message, param = describe(error)
        # Preprocessing gives the position of a message only in the text.
        at = _POSITION.match(message)
        if param and param.startswith("messages") and "messages" in self._names and at and at[0].startswith(param):
            param = at[0]

        def translated(found: re.Match[str]) -> str:
            # What is quoted may be a word of the client's.
            quoted = found.start() > 0 and found.string[found.start() - 1] == "'" and found[0] != param
            return found[0] if quoted else self._translate(found[0])

        kind = error.kind if isinstance(error, RequestError) else "invalid_request"
        own = _POSITION.sub(translated, message)
        return RequestError(own, kind=kind, param=param and self._translate(param))

    def _translate(self, position: str) -> str:
        end = len(position)
        while end > 0:
            if (own := self._names.get(position[:end])) is not None:
                return own + position[end:]
            end = max(position.rfind(".", 0, end), position.rfind("[", 0, end))
        return position


def generation_names(body: GenerationBody, prompt: str) -> dict[str, str]:
    """Return the own names of what the tensors of a chat or a plain completion rename. prompt: the prompt's field."""
    field, given = body.constraint_field, body.structured()
    if not given:
        schema = {
            "guided_decoding_guide": "response_format.json_schema.schema",
            "structured_outputs": "response_format",
        }
        return {"input_ids": prompt} | schema
    sent = f"structured_outputs.{next(iter(given[0]))}"
    own = sent if field == "structured_outputs" else field
    return {"input_ids": prompt, "structured_outputs": field, sent: own, "guided_decoding_guide": own}
