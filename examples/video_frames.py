# SPDX-License-Identifier: Apache-2.0
"""Ask about a video, sent as its frames: images in their order.

python examples/video_frames.py frames/*.jpg --question "描述一下视频的内容。不要重复。"

A video file (MP4, MOV, WebM, MKV) is sent as {"type": "video_url", "video_url": {"url": ...}}; the server samples it.
"""

from arguments import argument_parser, image_url, print_streamed
from openai import OpenAI
from openai.types.chat import ChatCompletionContentPartParam

parser = argument_parser(__doc__)
parser.add_argument("frames", nargs="+", type=image_url)
parser.add_argument("--question", default="Describe the video.")
# Gemma 3 has no markers: it places an image where its content part is.
parser.add_argument("--marker", default="<image>", help='text that marks a frame for InternVL; "" for Gemma 3')
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
content: list[ChatCompletionContentPartParam] = []
for number, url in enumerate(args.frames, 1):
    content.append({"type": "text", "text": f"Frame{number}:{args.marker}"})
    content.append({"type": "image_url", "image_url": {"url": url}})
content.append({"type": "text", "text": args.question})
answer = client.chat.completions.create(
    model=args.model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=512, stream=True
)
print_streamed(answer)
