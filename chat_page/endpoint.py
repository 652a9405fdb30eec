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
# Pictures and videos travel inside the body; the endpoint has a limit of its own.
_MAX_BODY_BYTES = 256 * 2**20
_END = "-----END CERTIFICATE-----"
_TO_ENDPOINT = ("accept", "authorization", "content-type")
_TO_PAGE = ("content-type", "retry-after", "x-request-id")


class Endpoint:
    """One connection pool for all visitors, who each have their own key."""

    def __init__(self, settings: PageSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Create the pool; `transport` replaces the network in tests."""
        self.base_url = settings.base_url
        self._key = settings.api_key
        certificate = settings.api_certificate
        self._client = httpx.AsyncClient(
            # No timeout for answers: the server has its own, and the visitor has a stop button.
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None),
            verify=True if certificate is None else trust_only(certificate),
            # Proxies of the environment must not come between this page and its server.
            trust_env=False,
            transport=transport,
        )

    async def answer(self, request: Request) -> Response:
        """Send a request of the page to the endpoint. A disconnect of the visitor closes the endpoint's connection."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return error_response(403, "Only the chat page itself may ask here.", "cross_site")
        headers = {name: request.headers[name] for name in _TO_ENDPOINT if name in request.headers}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        url = self.base_url + request.url.path.removeprefix("/v1")
        try:
            body = await _read_body(request)
            if body is None:
                return error_response(413, f"The chat has more than {_MAX_BODY_BYTES >> 20} MiB.", "too_large")
            sent = self._client.build_request(request.method, url, headers=headers, content=body)
            response = await self._send(sent, request)
        except httpx.TransportError:
            return error_response(502, f"The server at {self.base_url} cannot be reached.", "unreachable")
        except ClientDisconnect:
            # Nobody reads this.
            return Response(status_code=499)
        returned = {name: response.headers[name] for name in _TO_PAGE if name in response.headers}
        return StreamingResponse(_body(response), response.status_code, returned)

    async def _send(self, sent: httpx.Request, request: Request) -> httpx.Response:
        """Wait for the endpoint's headers, which may come with the first token. Raises ClientDisconnect."""
        sending = asyncio.create_task(self._client.send(sent, stream=True))
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
