# SPDX-License-Identifier: Apache-2.0
"""The objects that all requests of a process share: the connection to Triton, the models, the limits, the fetcher."""

import asyncio
from contextlib import suppress
from pathlib import Path

from frontend.images import ImageFetcher
from frontend.serving.admission import Admission
from frontend.serving.catalog import Catalog
from frontend.serving.slow_readers import SlowReaders
from frontend.serving.write_throttle import WriteThrottle
from frontend.settings import Settings
from frontend.triton.client import TritonClient
from frontend.triton.discovery import StateFile, TritonIndex

STOP_PATIENCE = 2.0  # seconds at shutdown for Triton to receive the last stop requests


class Service:
    """What the endpoints of one process need. Create it in a running event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.triton = TritonClient(
            settings.triton_url, settings.owner, settings.repository_key, metrics_url=settings.triton_metrics_url
        )
        self.images = ImageFetcher(settings)
        told = settings.models_state
        source = TritonIndex(self.triton) if told is None else StateFile(Path(told))
        self.catalog = Catalog(settings, self.triton, self.images, source)
        self.write_throttle = WriteThrottle()
        self.admission = Admission(settings, self.catalog)
        self.slow_readers = SlowReaders(settings.stall_timeout, settings.max_backlog)
        self._monitoring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect to Triton and start the background tasks."""
        self.triton.start()
        self.catalog.start()
        self._monitoring = asyncio.create_task(self.slow_readers.run())

    async def close(self) -> None:
        """Cancel the requests in progress, stop them in Triton, and disconnect."""
        self.admission.cancel_all()
        if self._monitoring is not None:
            self._monitoring.cancel()
            with suppress(asyncio.CancelledError):
                await self._monitoring
        await self.catalog.close()
        await self.triton.close(STOP_PATIENCE)
        await self.images.close()
