# SPDX-License-Identifier: Apache-2.0
"""Announces answers to `postprocessing`, for engines that do not report how an answer ended."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.errors import RequestError
from preprocessing.prompt import EngineInput
from python_backend.api import pb_utils
from python_backend.tensors import ints


def announce(postprocessing: str, request_id: str, prompt: EngineInput, parameters: Mapping[str, Any]) -> None:
    """Send `postprocessing` the limit and the end id of an answer, with the parameters of its request.

    postprocessing: the name of the Triton model.

    This is a separate request because a step of an ensemble cannot take a tensor that is sent once beside a stream.
    Raises RequestError if an answer of the same id is in progress, as their tokens could not be distinguished.
    """
    announcement = pb_utils.InferenceRequest(
        model_name=postprocessing,
        request_id=request_id,
        requested_output_names=["text_output"],
        inputs=[
            pb_utils.Tensor("output_ids", np.zeros((1, 1, 0), np.int32)),
            ints("request_output_len", [prompt.request_output_len]),
            ints("end_id", [prompt.end_id]),
        ],
        parameters={name: value for name, value in parameters.items() if isinstance(value, str | int | bool)},
    )
    response = announcement.exec()
    if response.has_error():
        text = response.error().message()
        raise RequestError.decode(text) or RequestError("postprocessing cannot take an answer now", kind="unavailable")
