# SPDX-License-Identifier: Apache-2.0
"""Stream an answer from the model `ensemble` through Triton's gRPC API; images are sent as raw bytes.

pip install 'tritonclient[grpc]'
python examples/triton_grpc.py "Please name the capital of France."
python examples/triton_grpc.py "What do you see?" photo.jpg
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.aio as grpc
from arguments import triton_parser
from tritonclient.utils import triton_to_np_dtype

parser = triton_parser(__doc__, "127.0.0.1:8001")
parser.add_argument("images", nargs="*", type=Path)
args = parser.parse_args()


def tensor(name: str, datatype: str, *values: Any) -> grpc.InferInput:
    """Create an input [1, n]; the first dimension is the batch."""
    data = np.array([values], triton_to_np_dtype(datatype))
    return grpc.InferInput(name, data.shape, datatype).set_data_from_numpy(data)


async def requests() -> Any:
    # OpenAI messages as JSON. Each image part takes the next element of the tensor `images`.
    content = [{"type": "image_url"}] * len(args.images) + [{"type": "text", "text": args.question}]
    messages = json.dumps({"messages": [{"role": "user", "content": content}]})
    inputs = [tensor("messages", "BYTES", messages), tensor("stream", "BOOL", True)]
    inputs += [tensor("max_tokens", "INT32", 256), tensor("temperature", "FP32", 0.0)]
    inputs += [tensor("images", "BYTES", *(path.read_bytes() for path in args.images))] if args.images else []
    # chat: reasoning and tool calls have their own outputs. error_output: a failure is the output `error`.
    yield {"model_name": "ensemble", "inputs": inputs, "parameters": {"chat": True, "error_output": True}}


async def main() -> None:
    async with grpc.InferenceServerClient(args.url) as triton:
        async for result, error in triton.stream_infer(requests()):
            if error or (failure := result.as_numpy("error")) is not None:
                raise error or SystemExit(failure.item().decode())
            if (text := result.as_numpy("text_output")) is not None:
                print(text.item().decode(), end="", flush=True)
    print()


asyncio.run(main())
