# SPDX-License-Identifier: Apache-2.0
"""What one image or video, and all of a request together, may weigh."""


class FetchError(Exception):
    """Why one image cannot be had: a phrase that follows "image 2: ". It holds nothing that the client did not send."""


class Allowance:
    """Bytes that the images of one request may still have together."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit


class Meter:
    """Counts the bytes of one image against its own limit and against its request's.

    option: the setting behind the limit, for the message.
    """

    def __init__(self, limit: int, option: str, allowance: Allowance) -> None:
        self.limit = limit
        self._left = limit
        self._option = option
        self._allowance = allowance

    def add(self, size: int) -> None:
        """Raises FetchError where `size` more bytes are too many."""
        self._left -= size
        self._allowance.left -= size
        if self._left < 0:
            raise FetchError(f"it is larger than {self.limit} bytes ({self._option})")
        if self._allowance.left < 0:
            limit = self._allowance.limit
            raise FetchError(f"with it, all together are larger than {limit} bytes (image_total_bytes)")
