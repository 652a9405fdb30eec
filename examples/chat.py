# SPDX-License-Identifier: Apache-2.0
"""Ask one question and print the answer, at once or streamed.

python examples/chat.py "你好，你是谁？"
python examples/chat.py "你好，你是谁？" --stream
python examples/chat.py "你好，你是谁？" --no-thinking
"""

from arguments import argument_parser
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("question")
parser.add_argument("--system", default="You are a helpful assistant.")
parser.add_argument("--stream", action="store_true", help="print the answer as it is generated")
parser.add_argument("--no-thinking", action="store_true", help="for models that think before they answer")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
request = {
    "model": args.model,
    "messages": [{"role": "system", "content": args.system}, {"role": "user", "content": args.question}],
    # Fields that OpenAI's API does not have go into extra_body.
    "extra_body": {"enable_thinking": False} if args.no_thinking else {},
}

answer = client.chat.completions.create(stream=args.stream, **request)
pieces = (chunk.choices[0].delta for chunk in answer) if args.stream else iter([answer.choices[0].message])
thinking = False
for piece in pieces:
    if reasoning := getattr(piece, "reasoning_content", None):
        print(reasoning if thinking else f"[thinking] {reasoning}", end="", flush=True)
        thinking = True
    if piece.content:
        print(f"\n[answer] {piece.content}" if thinking else piece.content, end="", flush=True)
        thinking = False
print()
if not args.stream:
    print(f"({answer.usage.prompt_tokens} tokens read, {answer.usage.completion_tokens} written)")
