# SPDX-License-Identifier: Apache-2.0
"""Calls of the model `tensorrt_llm`."""

import numpy as np

from common.logs import about
from postprocessing.streams import StreamKey
from python_backend.api import pb_utils
from python_backend.logs import model_logger

log = model_logger("postprocessing", verbose=False)


def stop(engine: str, key: StreamKey) -> None:
    """Stop an engine's generation of a stream, with a request of the same id and the input `stop`.

    engine: the name of the Triton model.
    """
    request_id, stream_id = key
    one = np.ones((1, 1), np.int32)
    flags = np.ones((1, 1), bool)
    request = pb_utils.InferenceRequest(
        model_name=engine,
        request_id=request_id,
        requested_output_names=["output_ids", "sequence_length"],
        inputs=[
            pb_utils.Tensor("input_lengths", one),
            pb_utils.Tensor("request_output_len", one),
            pb_utils.Tensor("stop", flags),
            pb_utils.Tensor("streaming", flags),
        ],
        parameters={"stream_id": stream_id} if stream_id else {},
    )
    for response in request.exec(decoupled=True):
        if response.has_error():
            log.warning("stopping a request failed: %s", response.error().message(), extra=about(request_id))
