# SPDX-License-Identifier: Apache-2.0
"""Small generated videos."""

import functools
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

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
    options_of_file = {"movflags": movflags} if movflags else {}
    with _same_scheduling(), av.open(file, "w", format=kind, options=options_of_file) as container:
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


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1's encoder does to a thread of root: real-time priority, before all else on the machine.

    The processes that the tests start would inherit it.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, policy, parameters)


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
