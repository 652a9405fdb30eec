# SPDX-License-Identifier: Apache-2.0
"""Fetches the images of one request in parallel, and turns failures into the client's errors."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from common.errors import RequestError
from frontend.images.addresses import Hosts, Resolve, system_resolve
from frontend.images.data_urls import decode_data_url
from frontend.images.files import read_file
from frontend.images.limits import Allowance, FetchError, Meter, no_account
from frontend.images.web import Web
from frontend.protocol.messages import VideoUrl
from frontend.settings import Settings
from frontend.telemetry.metrics import ImageFetch
from frontend.telemetry.request_record import current


class ImageFetcher:
    """Fetches the encoded bytes of images and videos. Every failure is a RequestError with the param `messages`."""

    def __init__(self, settings: Settings, resolve: Resolve = system_resolve) -> None:
        self._settings = settings
        self._directories = [Path(directory).resolve() for directory in settings.image_dirs]
        hosts = Hosts(settings.image_hosts, settings.image_private_hosts, resolve)
        self._web = Web(hosts, settings.image_max_redirects, settings.image_timeout)

    async def close(self) -> None:
        """Close all connections."""
        await self._web.close()

    async def fetch(self, urls: Sequence[str], take: Callable[[int], None] = no_account) -> tuple[bytes, ...]:
        """Fetch files, in the order of their URLs. If one fails or the caller is cancelled, all are cancelled.

        take: gets the bytes that come from elsewhere, and raises an error if the process has no room for them.
        """
        current().images = len(urls)
        if len(urls) > self._settings.max_images:
            message = f"messages: at most {self._settings.max_images} images and videos are allowed (max_images)"
            raise RequestError(message, param="messages")
        allowance = Allowance(self._settings.image_total_bytes)
        slots = asyncio.Semaphore(self._settings.image_concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._fetch(url, number, self._meter(url, allowance, take), slots))
                    for number, url in enumerate(urls, 1)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    def _meter(self, url: str, allowance: Allowance, take: Callable[[int], None]) -> Meter:
        if isinstance(url, VideoUrl):
            return Meter(self._settings.video_max_bytes, "video_max_bytes", allowance, take)
        return Meter(self._settings.image_max_bytes, "image_max_bytes", allowance, take)

    async def _fetch(self, url: str, number: int, meter: Meter, slots: asyncio.Semaphore) -> bytes:
        with ImageFetch(url.strip().partition(":")[0].lower()) as fetch:
            data = await self._within_limits(url, number, meter, slots)
            fetch.size = len(data)
            return data

    async def _within_limits(self, url: str, number: int, meter: Meter, slots: asyncio.Semaphore) -> bytes:
        timeout = self._settings.image_timeout
        try:
            async with slots, asyncio.timeout(timeout):
                return await self._read(url.strip(), meter)
        except FetchError as error:
            problem = str(error)
        except TimeoutError:
            problem = f"it took longer than {timeout:g} s to fetch (image_timeout)"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
            problem = "it could not be fetched"
        kind = "video" if isinstance(url, VideoUrl) else "image"
        raise RequestError(f"messages: {kind} {number}: {problem}", param="messages")

    async def _read(self, url: str, meter: Meter) -> bytes:
        scheme = url.partition(":")[0].lower()
        if scheme in ("http", "https"):
            return await self._web.download(url, meter)
        if scheme == "data":
            # The request has room for what is in its body.
            data = decode_data_url(url)
            meter.add(len(data))
        elif scheme == "file":
            data = await asyncio.to_thread(read_file, url, self._directories, meter.limit + 1)
            meter.fetch(len(data))
        else:
            raise FetchError("its URL must begin with data:, http:, https: or file:")
        return data
