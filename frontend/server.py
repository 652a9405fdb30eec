# SPDX-License-Identifier: Apache-2.0
"""The HTTP server process: its socket, its signals and its shutdown."""

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from common.files import reason
from frontend.app import create_app
from frontend.auth import authenticator
from frontend.images.files import check_image_dirs
from frontend.serving.http_protocol import BoundedProtocol
from frontend.serving.service import Service
from frontend.settings import Settings
from frontend.telemetry import logs
from frontend.tls import Certificate, check_certificate

logger = logging.getLogger(__name__)

CERTIFICATE_TICKS = 10  # uvicorn's ticks of 0.1 s between two checks whether the certificate's files have changed
DRAIN_POLL = 0.05  # seconds between two checks whether the last request has ended
PEER_TIMEOUT = 60  # seconds that a client's system may acknowledge no data, or have no room for it
# Seconds that a connection may be idle between two requests. A proxy that waits longer than its server sends a request
# into a connection that is being closed, and must not repeat a POST. nginx and AWS's load balancers wait 60 s.
KEEP_ALIVE = 75
FLUSH = 5.0  # seconds after the grace period for the last error events to reach clients


class Server(uvicorn.Server):
    """A uvicorn server that drains on SIGTERM.

    Readiness turns false, and new requests are still served for `shutdown_delay`, within which a balancer notices. Then
    it refuses new requests, lets those in progress finish within the grace period, and cancels the rest.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.app = create_app(settings)
        self._certificate: Certificate | None = None
        super().__init__(
            uvicorn.Config(
                self.app,
                loop="uvloop",
                http=BoundedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level=settings.log_level,
                access_log=False,
                server_header=False,
                # Nothing here reads the client's address or scheme, so X-Forwarded-* are ignored.
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
                # Counted from the end of the grace period, which `_finish_requests` waits for.
                timeout_graceful_shutdown=int(FLUSH),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            logger.info("listening on %s:%d", *listening.getsockname()[:2])
        self._certificate = self._load_certificate()
        for warning in authenticator.warnings(self._settings):
            logger.warning("%s", warning)
        # All objects of the start live as long as the process, so the garbage collector need not visit them.
        gc.collect()
        gc.freeze()

    def _load_certificate(self) -> Certificate | None:
        context, settings = self.config.ssl, self._settings
        if context is None or settings.tls_certificate is None or settings.tls_key is None:
            return None
        return Certificate(settings.tls_certificate, settings.tls_key, context)

    async def on_tick(self, counter: int) -> bool:
        if self._certificate is not None and counter % CERTIFICATE_TICKS == 0:
            self._certificate.refresh()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service: Service = self.app.state.service
        service.admission.stopping = True
        await self._wait(self._settings.shutdown_delay)
        service.admission.drain()
        timer = asyncio.get_running_loop().call_later(self._settings.grace_period, service.admission.cancel_all)
        await self._finish_requests()
        await super().shutdown(sockets)
        timer.cancel()

    async def _finish_requests(self) -> None:
        """Wait for the requests in progress. Connections stay open: new requests get a 503, and readiness is false."""
        await self._wait(self._settings.grace_period, lambda: bool(self.server_state.tasks))

    async def _wait(self, seconds: float, needed: Callable[[], bool] = lambda: True) -> None:
        """Wait for some seconds, while it is needed and nobody is in a hurry."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while needed() and loop.time() < end and not self.force_exit:
            await asyncio.sleep(DRAIN_POLL)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own version raises the signal again after the shutdown, and the process would not exit with 0.
        # Under nohup SIGHUP is ignored, and stays so; else the end of a terminal lets requests finish too.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        handled = (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))
        previous = {one: signal.signal(one, self.handle_exit) for one in handled}
        try:
            yield
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status.

    Raises SettingsError if a file of the settings cannot be used.
    """
    logs.set_up(settings.log_level, settings.log_format)
    check_certificate(settings)
    check_image_dirs(settings)
    listening: list[socket.socket] = []
    for port in (settings.port, settings.metrics_port):
        if port is None:
            continue
        try:
            listening.append(shared_socket(settings.host, port))
        except OSError as error:
            for other in listening:
                other.close()
            sys.stderr.write(f"error: --host={settings.host!r}, port {port}: cannot listen: {reason(error)}.\n")
            return 1
    server = Server(settings)
    server.run(sockets=listening)
    return 0 if server.started else 1


def shared_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket on a port that other processes of this server may share."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Connections inherit this: the kernel drops one, and its buffers, if its client takes no data for so long.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT * 1000)
        listening.bind(address)
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening
