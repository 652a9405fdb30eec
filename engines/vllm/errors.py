# SPDX-License-Identifier: Apache-2.0
"""Tell vLLM's refusals of a request from faults of the engine."""

from vllm.v1.engine.exceptions import EngineDeadError

from common.errors import RequestError
from engines.sampling import refused
from engines.vllm.versions import CLIENT_ERROR

# Beginnings of refusals that name no parameter.
_PROMPT = ("The decoder prompt", "Token id")
# Part of those of a prompt with a picture or video of more tokens than the engine encodes at once.
_ITEM = "embedding tokens"


def request_error(error: Exception) -> RequestError | None:
    """The RequestError for an error that vLLM raised; None for a fault of the engine.

    VLLMValidationError is no ValueError; other parts of vLLM raise ValueError for a wrong request.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, EngineDeadError):
        return RequestError("the engine has stopped", kind="unavailable")
    for cause in (error, error.__cause__):
        if isinstance(cause, CLIENT_ERROR | ValueError):
            message = str(cause.args[0]) if cause.args else str(cause)
            if message.startswith(_PROMPT):
                return RequestError(message, param="messages" if _ITEM in message else "input_ids")
            return refused(message, getattr(cause, "parameter", None))
    return None
