# SPDX-License-Identifier: Apache-2.0
"""Send streaming requests to Triton with `tritonclient`."""

import asyncio
import uuid

import numpy as np
import tritonclient.grpc.aio as grpc
from tritonclient.utils import np_to_triton_dtype

from tests.support.waiting import PATIENCE_S


def tensor(name: str, value, dtype=None) -> grpc.InferInput:
    """Create an input with a batch dimension of 1 from a value or a list of values."""
    array = np.array([value] if isinstance(value, list) else [[value]], dtype=dtype)
    made = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


async def infer(stack, model: str, inputs: list, parameters: dict | None = None, request_id: str | None = None) -> list:
    """Send one streaming request; returns its responses as {output: array}, raises the server's error."""
    done = asyncio.Event()

    async def requests():
        yield {
            "model_name": model,
            "inputs": inputs,
            "request_id": request_id if request_id is not None else uuid.uuid4().hex,
            "parameters": parameters or {},
        }
        await done.wait()

    responses = []
    async with grpc.InferenceServerClient(stack.grpc_url) as client:
        async with asyncio.timeout(PATIENCE_S):
            async for result, error in client.stream_infer(requests()):
                if error is not None:
                    done.set()
                    raise error
                response = result.get_response()
                responses.append({o.name: result.as_numpy(o.name) for o in response.outputs})
                if response.parameters["triton_final_response"].bool_param:
                    break
        done.set()
    return responses


def text_of(responses: list) -> str:
    """Join the text of all responses."""
    return b"".join(r["text_output"].item() for r in responses).decode()
