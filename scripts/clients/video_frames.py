# SPDX-License-Identifier: Apache-2.0
"""Ask about a video by its frames, each an image, in their order.

python scripts/clients/video_frames.py frames/*.jpg --question "描述一下视频的内容。不要重复。"

A whole MP4, MOV, WebM or MKV goes as {"type": "video_url", "video_url": {"url": ...}}; the server samples its frames.
"""

from arguments import argument_parser, image_url
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("frames", nargs="+", type=image_url)
parser.add_argument("--question", default="Describe the video.")
# Gemma 3 has no markers: there a picture stands where its part does.
parser.add_argument("--marker", default="<image>", help='where InternVL puts a frame; "" for Gemma 3')
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
content = []
for number, url in enumerate(args.frames, 1):
    content.append({"type": "text", "text": f"Frame{number}:{args.marker}"})
    content.append({"type": "image_url", "image_url": {"url": url}})
content.append({"type": "text", "text": args.question})
answer = client.chat.completions.create(
    model=args.model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=512
)
print(answer.choices[0].message.content)
