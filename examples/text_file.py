# SPDX-License-Identifier: Apache-2.0
"""Ask about a long text, for example for a summary of a novel.

python examples/text_file.py novel.txt "简述一下上面这篇小说的前几章内容。"
"""

from pathlib import Path

from arguments import argument_parser
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("file", type=Path)
parser.add_argument("question")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
text = args.file.read_text(encoding="utf-8")
# The text comes first, so that further questions about it use the server's prefix cache.
answer = client.chat.completions.create(
    model=args.model, messages=[{"role": "user", "content": f"{text}\n\n{args.question}"}]
)
print(answer.choices[0].message.content)
if answer.usage:
    print(f"({answer.usage.prompt_tokens} tokens read, {answer.usage.completion_tokens} written)")
