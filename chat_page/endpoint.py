# SPDX-License-Identifier: Apache-2.0
"""The OpenAI endpoint, through the official client, and what goes wrong there in sentences."""

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
    """One connection pool for all visitors; each brings a key of their own."""

    def __init__(self, settings: PageSettings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """transport: for tests, instead of the network."""
        self.base_url = settings.base_url
        certificate = settings.api_certificate
        http = httpx2.AsyncClient(
            # No limit on answers: the server has its own, and the visitor a stop button.
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None),
            verify=True if certificate is None else trust_only(certificate),
            # No proxy of the environment stands between this page and its server.
            trust_env=False,
            transport=transport,
        )
        # The client insists on some key.
        self._client = AsyncOpenAI(base_url=self.base_url, api_key=settings.api_key or "none", http_client=http)

    def client(self, key: str) -> AsyncOpenAI:
        """The official client with a visitor's key, or the page's own where it is empty."""
        key = key.strip()
        if not key:
            return self._client
        if not key.isascii() or not key.isprintable():
            raise PageError("This API key has characters that no key has.")
        return self._client.with_options(api_key=key)

    async def models(self, key: str) -> list[str]:
        """Names of the models, in the server's order; raises PageError."""
        try:
            return [model.id async for model in self.client(key).models.list()]
        except OpenAIError as error:
            raise PageError(self.error_message(error)) from error

    def error_message(self, error: BaseException) -> str:
        """What went wrong, for the visitor."""
        if isinstance(error, PageError):
            return str(error)
        if isinstance(error, APIConnectionError):
            return f"The server at {self.base_url} cannot be reached. It may be starting; try again in a moment."
        if isinstance(error, AuthenticationError):
            return "The server wants an API key that it knows. Type yours into the settings."
        if isinstance(error, APIStatusError):
            return f"The server refused this ({error.status_code}): {_server_message(error)}"
        if isinstance(error, APIError):
            return f"The answer broke off: {_server_message(error)}"
        if isinstance(error, httpx2.HTTPError):
            return "The answer broke off: the connection to the server was lost."
        logger.error("an answer failed", exc_info=error)
        return "Something went wrong in this page; its log says what."


def _server_message(error: APIError) -> str:
    """The server's own message without the client's frame of codes and braces."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    text = str(message or error.message).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def trust_only(certificate: Path) -> ssl.SSLContext:
    """Accept the file's first certificate and no other; its name is not looked at, for it is reached by an address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    first, end, _ = certificate.read_text(encoding="ascii", errors="ignore").partition(_END)
    context.load_verify_locations(cadata=first + end + "\n")
    return context
