# SPDX-License-Identifier: Apache-2.0
"""The log of a Triton model: its level and its format are the frontend's settings."""

import logging
import os
from collections.abc import Mapping

from common.logs import LEVELS, handler
from common.model_names import role
from python_backend.config import TRITON_MODEL


def model_logger(name: str, *, verbose: bool, environment: Mapping[str, str] = os.environ) -> logging.Logger:
    """Set up and return the logger of a Triton model.

    It has a handler of its own, so that a library that sets up the root logger does not change it.
    name: of the model if it is served alone. verbose: as for `handler`; at the level debug every model is verbose.
    environment: TRITON_CHAT_LOG_LEVEL and TRITON_CHAT_LOG_FORMAT, as for the frontend. Raises ValueError for a level
    or a format that is not known.
    """
    logger = logging.getLogger(name)
    level = (environment.get("TRITON_CHAT_LOG_LEVEL") or "info").strip().lower()
    if level not in LEVELS:
        raise ValueError(f"unknown log level '{level}'; known: {', '.join(LEVELS)}")
    logger.setLevel(level.upper())
    log_format = (environment.get("TRITON_CHAT_LOG_FORMAT") or "text").strip().lower()
    own = handler(log_format, verbose=verbose or level == "debug")
    own.addFilter(_OwnName(environment.get(TRITON_MODEL) or name))
    logger.handlers = [own]
    logger.propagate = False
    return logger


class _OwnName(logging.Filter):
    """Names the step of one of several models in full, `qwen3.vit`, in the lines of its logger `vit`."""

    def __init__(self, triton_model: str) -> None:
        super().__init__()
        self._triton_model, self._role = triton_model, role(triton_model)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == self._role:
            record.name = self._triton_model
        return True
