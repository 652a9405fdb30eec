# SPDX-License-Identifier: Apache-2.0
"""The OpenAI endpoint, through the official client, and messages for its errors."""

import logging
import ssl
from pathlib import Path

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, AuthenticationError, OpenAIError

from chat_page.settings import PageSettings
from chat_page.turns import PageError

logger = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 10.0
_END = "-----END CERTIFICATE-----"


class Endpoint:
    """One connection pool for all visitors, who each have their own key."""

    def __init__(self, settings: PageSettings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """Create the pool; `transport` replaces the network in tests."""
        self.base_url = settings.base_url
        certificate = settings.api_certificate
        http = httpx2.AsyncClient(
            # No timeout for answers: the server has its own, and the visitor has a stop button.
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None),
            verify=True if certificate is None else trust_only(certificate),
            # Proxies of the environment must not come between this page and its server.
            trust_env=False,
            transport=transport,
        )
        # The client requires a key.
        self._client = AsyncOpenAI(base_url=self.base_url, api_key=settings.api_key or "none", http_client=http)

    def client(self, key: str) -> AsyncOpenAI:
        """The official client with a visitor's key, or with the page's own if it is empty. Raises PageError."""
        key = key.strip()
        if not key:
            return self._client
        if not key.isascii() or not key.isprintable():
            raise PageError("This API key has characters that no key has.")
        return self._client.with_options(api_key=key)

    async def models(self, key: str) -> list[str]:
        """List the names of the models in the server's order. Raises PageError."""
        try:
            return [model.id async for model in self.client(key).models.list()]
        except OpenAIError as error:
            raise PageError(self.error_message(error)) from error

    def error_message(self, error: BaseException) -> str:
        """Describe an error to the visitor."""
        if isinstance(error, PageError):
            return str(error)
        if isinstance(error, APIConnectionError):
            return f"The server at {self.base_url} cannot be reached. It may be starting; try again in a moment."
        if isinstance(error, AuthenticationError):
            return "The server requires a valid API key. Enter yours in the settings."
        if isinstance(error, APIStatusError):
            return f"The server refused this ({error.status_code}): {_server_message(error)}"
        if isinstance(error, APIError):
            return f"The answer broke off: {_server_message(error)}"
        if isinstance(error, httpx2.HTTPError):
            return "The answer broke off: the connection to the server was lost."
        logger.error("an answer failed", exc_info=error)
        return "Something went wrong in this page. See its log."


def _server_message(error: APIError) -> str:
    """The server's message without the status code and body that the client adds."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    text = str(message or error.message).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


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
