# SPDX-License-Identifier: Apache-2.0
"""The messages of a conversation, and the images for the next question."""

import base64
from pathlib import Path, PurePosixPath
from typing import cast
from urllib.parse import urlsplit

from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam

from common.files import reason
from scripts.shared.errors import CommandError

# Media types that the server decodes, by file name.
_TYPES = {
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


class AttachmentError(CommandError):
    """An image or video cannot be attached."""


def attachment(path: str) -> ChatCompletionContentPartParam:
    """Make the content part of an image or a video from a file or an http(s) address, which the server fetches.

    Raises AttachmentError for a file that cannot be read or whose name is not that of an image or a video.
    """
    address = path.startswith(("http://", "https://"))
    media_type = _TYPES.get(PurePosixPath(urlsplit(path).path if address else path).suffix.lower())
    if address:
        return _part(media_type or "image/*", path)
    file = Path(path).expanduser()
    if media_type is None:
        raise AttachmentError(f"'{file}' is not a picture or video by its name; known: {', '.join(_TYPES)}.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AttachmentError(f"'{file}' cannot be read: {reason(error)}.") from error
    return picture_part(media_type, content)


def is_attachment(path: str) -> bool:
    """Whether this is the path of an existing picture or video, by its name."""
    file = Path(path).expanduser()
    return file.suffix.lower() in _TYPES and file.is_file()


def picture_part(media_type: str, content: bytes) -> ChatCompletionContentPartParam:
    """Make the content part of a picture or a video from its bytes."""
    return _part(media_type, f"data:{media_type};base64,{base64.b64encode(content).decode()}")


def _part(media_type: str, url: str) -> ChatCompletionContentPartParam:
    kind = "video_url" if media_type.startswith("video/") else "image_url"
    # OpenAI's types have no `video_url`, which this server adds.
    return cast(ChatCompletionContentPartParam, {"type": kind, kind: {"url": url}})


class Conversation:
    """The questions and answers so far. `ask` adds a question, `answer` its answer; `withdraw` removes the question."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.attached: list[ChatCompletionContentPartParam] = []
        self._turns: list[ChatCompletionMessageParam] = []

    @property
    def messages(self) -> list[ChatCompletionMessageParam]:
        """The messages for the API."""
        if not self.system:
            return list(self._turns)
        return [{"role": "system", "content": self.system}, *self._turns]

    def attach(self, part: ChatCompletionContentPartParam) -> None:
        """Add an image or a video to the next question."""
        self.attached.append(part)

    def ask(self, question: str) -> None:
        """Add a question, with what was attached to it."""
        parts, self.attached = self.attached, []
        if parts and question:
            parts.append({"type": "text", "text": question})
        self._turns.append({"role": "user", "content": parts or question})

    def answer(self, text: str) -> None:
        """Add the model's answer."""
        self._turns.append({"role": "assistant", "content": text})

    def withdraw(self) -> None:
        """Remove the last question, which got no answer."""
        self._turns.pop()

    def restart(self) -> None:
        """Remove everything except the system prompt."""
        self._turns, self.attached = [], []
