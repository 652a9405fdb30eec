# SPDX-License-Identifier: Apache-2.0
"""Answer a question from text files: find the passages nearest to it by their embeddings, and give them to the model.

pip install numpy
python examples/rag.py "Who founded the company?" notes/*.txt --model qwen3 --embedding-model bge-small

A chat model and an embedding model behind one address: triton-chat serve --models models.yaml.
"""

from pathlib import Path

import numpy as np
from arguments import argument_parser, print_streamed
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("question")
parser.add_argument("files", nargs="+", type=Path)
parser.add_argument("--embedding-model", default="", help="a name from GET /v1/models")
parser.add_argument("--embedding-url", help="the server of the embedding model (default: --url)")
parser.add_argument("--passages", type=int, default=3, help="passages for the model (default: %(default)s)")
args = parser.parse_args()

passages = [part for file in args.files for part in file.read_text(encoding="utf-8").split("\n\n") if part.strip()]
embedder = OpenAI(base_url=args.embedding_url or args.url, api_key=args.key)
made = embedder.embeddings.create(model=args.embedding_model, input=[args.question, *passages])
question, *others = (np.array(one.embedding) / np.linalg.norm(one.embedding) for one in made.data)
nearest = np.argsort([-(other @ question) for other in others])[: args.passages]

context = "\n\n".join(passages[index] for index in nearest)
prompt = f"Answer the question from these passages.\n\n{context}\n\nQuestion: {args.question}"
client = OpenAI(base_url=args.url, api_key=args.key)
answer = client.chat.completions.create(
    model=args.model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=256, stream=True
)
print_streamed(answer)
