# SPDX-License-Identifier: Apache-2.0
"""Pass the page's requests on to the OpenAI endpoint, and its answers back as they come."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from chat_page.settings import PageSettings

logger = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 10.0
# Pictures and videos travel inside the body. A little more than the API's default limit, so that the API says its own.
_MAX_BODY_BYTES = 33 * 2**20
_END = "-----END CERTIFICATE-----"
_TO_ENDPOINT = ("accept", "authorization", "content-type")
_TO_PAGE = ("content-type", "retry-after", "x-request-id")


class Endpoint:
    """One connection pool for all visitors, who each have their own key."""

    def __init__(self, settings: PageSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Create the pool; `transport` replaces the network in tests."""
        self.base_url = settings.base_url
        self._key = settings.api_key
        self._certificate = settings.api_certificate
        self._transport = transport
        self._version = _file_version(self._certificate)
        self._client = self._new_client()

    async def answer(self, request: Request) -> Response:
        """Send a request of the page to the endpoint. A disconnect of the visitor closes the endpoint's connection."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return error_response(403, "Only the chat page itself may ask here.", "cross_site")
        # As bytes, because httpx would encode text as ASCII.
        given = {name: request.headers[name] for name in _TO_ENDPOINT if name in request.headers}
        headers = {name.encode(): value.encode("latin-1") for name, value in given.items()}
        if self._key is not None:
            headers[b"authorization"] = f"Bearer {self._key}".encode()
        url = self.base_url + request.url.path.removeprefix("/v1")
        try:
            body = await _read_body(request)
            if body is None:
                return error_response(413, f"The chat has more than {_MAX_BODY_BYTES >> 20} MiB.", "too_large")
            client = self._current_client()
            sent = client.build_request(request.method, url, headers=headers, content=body)
            response = await self._send(client, sent, request)
        except httpx.LocalProtocolError:
            return error_response(400, "A header of the request has characters that cannot be sent.", "bad_header")
        except httpx.TransportError:
            return error_response(502, f"The server at {self.base_url} cannot be reached.", "unreachable")
        except ClientDisconnect:
            # Nobody reads this.
            return Response(status_code=499)
        # Starlette encodes them so again.
        response.headers.encoding = "latin-1"
        returned = {name: response.headers[name] for name in _TO_PAGE if name in response.headers}
        return StreamingResponse(_body(response), response.status_code, returned)

    async def _send(self, client: httpx.AsyncClient, sent: httpx.Request, request: Request) -> httpx.Response:
        """Wait for the endpoint's headers, which may come with the first token. Raises ClientDisconnect."""
        sending = asyncio.create_task(client.send(sent, stream=True))
        leaving = asyncio.create_task(_disconnect(request))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientDisconnect
            return await sending
        finally:
            sending.cancel()
            leaving.cancel()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _current_client(self) -> httpx.AsyncClient:
        """The client; a new one if the API's certificate has changed. Answers that the old one began go on."""
        version = _file_version(self._certificate)
        if version != self._version:
            self._version = version
            try:
                self._client = self._new_client()
            except (OSError, ValueError) as error:
                # A file that is being written changes once more.
                logger.error("%s: the certificate stays as it was: %s", self._certificate, error)
        return self._client

    def _new_client(self) -> httpx.AsyncClient:
        """Create a client that trusts the certificate as it is now. Raises OSError, ValueError if it is none."""
        pinned = self._certificate is not None
        return httpx.AsyncClient(
            # No timeout for answers: the server has its own, and the visitor has a stop button.
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            # A client that is replaced must leave no idle connection behind, and cannot be closed while it streams.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0 if pinned else None),
            verify=True if self._certificate is None else trust_only(self._certificate),
            # Proxies of the environment must not come between this page and its server.
            trust_env=False,
            transport=self._transport,
        )


async def _read_body(request: Request) -> bytes | None:
    """The request's body, or None if it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            return None
    return bytes(body)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for data in response.aiter_bytes():
            yield data
    except httpx.HTTPError as error:
        # The page sees that the stream's last event is missing.
        logger.warning("an answer broke off: %s", type(error).__name__)
    finally:
        await response.aclose()


def error_response(status: int, message: str, code: str) -> JSONResponse:
    """An error in OpenAI's form."""
    return JSONResponse({"error": {"message": message, "type": "chat_page_error", "code": code}}, status)


def _file_version(file: Path | None) -> tuple[int, int] | None:
    """What changes when the file is written or replaced; None without a file."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_ino)


def trust_only(certificate: Path) -> ssl.SSLContext:
    """Create a TLS context that accepts only the file's first certificate.

    Its host name is not checked, because the server is reached by an address.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    first, end, _ = certificate.read_text(encoding="ascii", errors="ignore").partition(_END)
    context.load_verify_locations(cadata=first + end + "\n")
    return context
