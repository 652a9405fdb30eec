# SPDX-License-Identifier: Apache-2.0
"""Ask about pictures, over several turns: the model gets all earlier turns with each question.

python examples/pictures.py --image photo.jpg "<image>简述一下这张图片的内容。"
python examples/pictures.py --image panda1.jpg --image https://example.com/panda2.jpg \\
    "Image-1: <image> Image-2: <image> How do they differ?" "Where is the second panda?"

A local file is sent in base64. The server fetches https: URLs itself. file: URLs must be below one of its --image-dirs.
"""

from arguments import argument_parser, image_url, print_streamed
from openai import OpenAI
from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam

parser = argument_parser(__doc__)
parser.add_argument("--image", action="append", type=image_url, default=[], help="a file or a URL, for the first turn")
parser.add_argument("questions", nargs="+")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
images: list[ChatCompletionContentPartParam] = [{"type": "image_url", "image_url": {"url": url}} for url in args.image]
messages: list[ChatCompletionMessageParam] = []
for question in args.questions:
    # The server keeps nothing between requests, so every request carries the pictures and all turns.
    text: ChatCompletionContentPartParam = {"type": "text", "text": question}
    messages.append({"role": "user", "content": [text] if messages else [text, *images]})
    print(f"> {question}", flush=True)
    answer = client.chat.completions.create(
        model=args.model, messages=messages, temperature=0, max_tokens=1024, stream=True
    )
    messages.append({"role": "assistant", "content": print_streamed(answer)})
    print()
