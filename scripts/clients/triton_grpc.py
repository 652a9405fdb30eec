# SPDX-License-Identifier: Apache-2.0
"""Stream an answer from the model `ensemble` through Triton's gRPC API; images are sent as raw bytes.

pip install 'tritonclient[grpc]'
python scripts/clients/triton_grpc.py "Please name the capital of France."
python scripts/clients/triton_grpc.py "What do you see?" photo.jpg
"""

import argparse
import json
import queue
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from arguments import print_errors_in_one_line
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

print_errors_in_one_line()
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--url", default="127.0.0.1:8001", help="Triton's gRPC endpoint (default: %(default)s)")
parser.add_argument("question")
parser.add_argument("images", nargs="*", type=Path)
args = parser.parse_args()


def tensor(name: str, values: list[Any], dtype: type[np.generic]) -> grpc.InferInput:
    """Create an input tensor [1, n]; the first dimension is the batch."""
    array = np.array([values], dtype=dtype)
    made = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


# OpenAI messages as JSON. Each image part takes the next element of the tensor `images`.
content = [{"type": "image_url"}] * len(args.images) + [{"type": "text", "text": args.question}]
chat = {"messages": [{"role": "user", "content": content}]}
inputs = [
    tensor("messages", [json.dumps(chat).encode()], np.object_),
    tensor("max_tokens", [256], np.int32),
    tensor("temperature", [0.0], np.float32),
    tensor("stream", [True], np.bool_),
]
if args.images:
    inputs.append(tensor("images", [path.read_bytes() for path in args.images], np.object_))

responses: queue.Queue[tuple[grpc.InferResult, InferenceServerException | None]] = queue.Queue()
with grpc.InferenceServerClient(args.url) as triton:
    # A stream alone would not say that nothing listens there.
    triton.is_server_live()
    triton.start_stream(lambda result, error: responses.put((result, error)))
    # chat: reasoning and tool calls have their own outputs. error_output: a failure is the output `error`.
    triton.async_stream_infer("ensemble", inputs, parameters={"chat": True, "error_output": True})
    while True:
        result, error = responses.get()
        if error is not None:
            raise SystemExit(f"Triton: {error}")
        if (failure := result.as_numpy("error")) is not None:
            raise SystemExit(failure.item().decode())
        if (text := result.as_numpy("text_output")) is not None:
            print(text.item().decode(), end="", flush=True)
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
print()
