# SPDX-License-Identifier: Apache-2.0
"""Ask several questions about images; the model gets all earlier turns with each question.

python scripts/clients/dialogue.py --image panda1.jpg --image panda2.jpg \\
    "Image-1: <image> Image-2: <image> 描述一下两张图片的不同。" "描述一下图片-2中的熊猫所在的环境。"
"""

from arguments import argument_parser, image_url
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
    # The server keeps nothing between requests, so every request carries the images and all turns.
    content: str | list[ChatCompletionContentPartParam]
    content = question if messages else [{"type": "text", "text": question}, *images]
    messages.append({"role": "user", "content": content})
    answer = client.chat.completions.create(model=args.model, messages=messages, temperature=0, max_tokens=256)
    messages.append({"role": "assistant", "content": answer.choices[0].message.content})
    print(f"> {question}\n{answer.choices[0].message.content}\n")
