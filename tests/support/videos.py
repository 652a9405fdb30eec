# SPDX-License-Identifier: Apache-2.0
"""Small generated videos."""

import functools
import io

import av
import numpy as np
from PIL import Image


@functools.cache
def video(
    kind: str = "mp4",
    codec: str = "libx264",
    frames: int = 23,
    size: tuple[int, int] = (80, 48),
    keyframe_every: int = 6,
    rotation: int = 0,
    options: tuple[tuple[str, str], ...] = (),
    movflags: str = "",
) -> bytes:
    """Encode a video in which a white bar moves right over a green background."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=10, options=dict(options))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = keyframe_every
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[:, :, 1] = 90
            pixels[:, number * size[0] // frames : (number + 4) * size[0] // frames] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def still(picture: Image.Image) -> bytes:
    """Encode an MP4 of one second that shows a picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    return file.getvalue()
