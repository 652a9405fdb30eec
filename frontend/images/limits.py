# SPDX-License-Identifier: Apache-2.0
"""Limits on the bytes of one image or video, and of all those of a request."""

from collections.abc import Callable


def no_account(size: int) -> None:
    """Accept any number of bytes."""


class FetchError(Exception):
    """The reason why an image cannot be fetched: a phrase to follow "image 2: ". It may be shown to clients."""


class Allowance:
    """The bytes left for all images of one request."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit


class Meter:
    """Counts the bytes of one image against its own limit and the limit of its request.

    option: the name of the setting that has the image's limit, for the message. take: gets the bytes that are fetched,
    and raises an error if the process has no room for them.
    """

    def __init__(self, limit: int, option: str, allowance: Allowance, take: Callable[[int], None] = no_account) -> None:
        self.limit = limit
        self._left = limit
        self._option = option
        self._allowance = allowance
        self._take = take

    def fetch(self, size: int) -> None:
        """Count `size` more bytes that are fetched; raises FetchError beyond a limit, or the error of `take`."""
        self.add(size)
        self._take(size)

    def add(self, size: int) -> None:
        """Count `size` more bytes; raises FetchError if they exceed a limit."""
        self._left -= size
        self._allowance.left -= size
        if self._left < 0:
            raise FetchError(f"it is larger than {self.limit} bytes ({self._option})")
        if self._allowance.left < 0:
            limit = self._allowance.limit
            raise FetchError(f"with it, all together are larger than {limit} bytes (image_total_bytes)")
