# SPDX-License-Identifier: Apache-2.0
"""Ask about a video: a local file, a URL, or a file on the server (MP4, MOV, WebM, MKV).

python examples/video.py film.mp4 "What happens?"
python examples/video.py film.mp4 "What happens?" --fps 2
python examples/video.py https://example.com/film.webm "What happens?" --frames 16

The server samples the frames: as many as asked, as many a second as asked, or eight.
"""

from typing import Any

from arguments import argument_parser, image_url, print_streamed
from openai import OpenAI

parser = argument_parser(__doc__)
parser.add_argument("video", type=image_url)
parser.add_argument("question")
parser.add_argument("--frames", type=int, help="number of frames")
parser.add_argument("--fps", type=float, help="frames per second")
args = parser.parse_args()

client = OpenAI(base_url=args.url, api_key=args.key)
# Not in the types of the package: OpenAI's own models take no videos.
video = {"url": args.video, "num_frames": args.frames, "fps": args.fps}
content: Any = [{"type": "video_url", "video_url": video}, {"type": "text", "text": args.question}]
answer = client.chat.completions.create(
    model=args.model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=512, stream=True
)
print_streamed(answer)
