# SPDX-License-Identifier: Apache-2.0
"""The messages of a conversation, and the pictures that wait for the next question."""

import base64
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from scripts.shared.errors import CommandError

Message = dict[str, Any]
Part = dict[str, Any]

# What the server decodes, by the file's name.
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


def attachment(path: str) -> Part:
    """The message part of a picture or a video: a file's bytes travel along, an http(s) address the server fetches.

    Raises AttachmentError for a file that cannot be read or has no picture's or video's name.
    """
    address = path.startswith(("http://", "https://"))
    media_type = _TYPES.get(PurePosixPath(urlsplit(path).path if address else path).suffix.lower())
    if address:
        return _part(media_type or "image/*", path)
    file = Path(path).expanduser()
    if media_type is None:
        raise AttachmentError(f"'{file}' is no picture or video by its name; known: {', '.join(_TYPES)}.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AttachmentError(f"'{file}' cannot be read: {error.strerror}.") from error
    return _part(media_type, f"data:{media_type};base64,{base64.b64encode(content).decode()}")


def _part(media_type: str, url: str) -> Part:
    kind = "video_url" if media_type.startswith("video/") else "image_url"
    return {"type": kind, kind: {"url": url}}


class Conversation:
    """What has been said. A question enters with `ask` and stays when it is answered; `withdraw` takes it back."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.waiting: list[Part] = []
        self._turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """As the API takes them."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self._turns]

    def attach(self, part: Part) -> None:
        """Keep a picture for the next question."""
        self.waiting.append(part)

    def ask(self, question: str) -> None:
        """Add a question with the pictures that waited for it."""
        text = [{"type": "text", "text": question}] if question else []
        self._turns.append({"role": "user", "content": [*self.waiting, *text] if self.waiting else question})
        self.waiting = []

    def answer(self, text: str) -> None:
        """Add what the model said."""
        self._turns.append({"role": "assistant", "content": text})

    def withdraw(self) -> None:
        """Forget the last question, which got no answer."""
        self._turns.pop()

    def restart(self) -> None:
        """Forget everything but the system prompt."""
        self._turns, self.waiting = [], []
