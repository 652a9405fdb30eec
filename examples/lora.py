# SPDX-License-Identifier: Apache-2.0
"""Ask a model and each of its LoRA adapters the same question; each adapter is a model with a `parent`.

triton-chat serve /models/Qwen3-8B --enable-lora --lora-modules sql=/adapters/sql poet=/adapters/poet
python examples/lora.py "Write about the sea."
"""

from arguments import argument_parser, print_streamed
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("question")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
served = client.models.list().data
base = args.model or served[0].id
adapters = [model.id for model in served if getattr(model, "parent", None) == base]
for name in (base, *adapters):
    print(f"[{name}] ", end="", flush=True)
    answer = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": args.question}], temperature=0, max_tokens=256, stream=True
    )
    print_streamed(answer)
