# SPDX-License-Identifier: Apache-2.0
"""Stream an answer from the model `ensemble` through the generate extension of Triton's HTTP API.

pip install httpx
python examples/triton_http.py "Please name the capital of France."
"""

import json

import httpx
from arguments import triton_parser

args = triton_parser(__doc__, "http://127.0.0.1:8000").parse_args()

# Fields named like inputs of the ensemble are tensors, all others are request parameters.
chat = {"messages": [{"role": "user", "content": args.question}]}
body = {"messages": json.dumps(chat), "max_tokens": 256, "temperature": 0.0, "stream": True, "chat": True}
url = f"{args.url}/v2/models/ensemble/generate_stream"
with httpx.stream("POST", url, json=body, timeout=600) as response:
    if response.is_error:
        raise SystemExit(response.read().decode())
    for line in response.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise SystemExit(event["error"])
            print(event.get("text_output", ""), end="", flush=True)
print()
