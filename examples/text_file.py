# SPDX-License-Identifier: Apache-2.0
"""Ask about a long text, for example for a summary of a novel.

python examples/text_file.py README.md
python examples/text_file.py novel.txt "简述一下上面这篇小说的前几章内容。"
"""

import sys
from pathlib import Path

from arguments import argument_parser, print_streamed
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("file", type=Path)
parser.add_argument("question", nargs="?", default="What is this text about? Answer in three sentences.")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
text = args.file.read_text(encoding="utf-8")
print(f"{len(text):,} characters to read, which takes a while without a GPU", file=sys.stderr)
# The text comes first, so that further questions about it use the server's prefix cache.
answer = client.chat.completions.create(
    model=args.model,
    messages=[{"role": "user", "content": f"{text}\n\n{args.question}"}],
    stream=True,
    stream_options={"include_usage": True},
)
print_streamed(answer)
