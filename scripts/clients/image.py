# SPDX-License-Identifier: Apache-2.0
"""Ask about an image: a local file, a URL, or a file on the server.

python scripts/clients/image.py photo.jpg "<image>简述一下这张图片的内容。"
python scripts/clients/image.py https://example.com/photo.jpg "What is this?"
python scripts/clients/image.py file:///srv/images/photo.jpg "What is this?"

A local file is sent in base64. The server fetches https: URLs itself. file: URLs must be below one of its --image-dirs.
"""

from arguments import argument_parser, image_url
from openai import OpenAI
from openai.types.chat import ChatCompletionContentPartParam

parser = argument_parser(__doc__)
parser.add_argument("image", type=image_url)
parser.add_argument("question")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
content: list[ChatCompletionContentPartParam] = [
    {"type": "text", "text": args.question},
    {"type": "image_url", "image_url": {"url": args.image}},
]
answer = client.chat.completions.create(
    model=args.model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=1024
)
print(answer.choices[0].message.content)
