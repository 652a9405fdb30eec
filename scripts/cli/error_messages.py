# SPDX-License-Identifier: Apache-2.0
"""Messages for failed requests of the terminal chat."""

import ssl

import openai


def describe(error: Exception, url: str) -> str:
    """Describe what went wrong and, if known, what to do. url: of the server."""
    if isinstance(error, openai.APITimeoutError):
        return f"{url} did not answer in time."
    if isinstance(error, openai.APIConnectionError):
        return _unreachable(error, url)
    if isinstance(error, openai.AuthenticationError):
        return f"{_server_message(error)} Give a key with --api-key or OPENAI_API_KEY."
    if isinstance(error, openai.NotFoundError) and not isinstance(error.body, dict):
        return f"{url} has no OpenAI API."
    if isinstance(error, openai.APIError):
        return _server_message(error)
    if isinstance(error, IndexError):
        return f"{url} serves no model."
    return str(error)


def _server_message(error: openai.APIError) -> str:
    """The server's own message, without the client library's dump of the body."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    text = str(message or error.message).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _unreachable(error: BaseException, url: str) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) or "CERTIFICATE" in str(cause):
            return f"{url} has a certificate that is not trusted here. SSL_CERT_FILE=cert.pem names one that is."
        cause = cause.__cause__ or cause.__context__
    return f"nothing answers at {url}. Start a server with `triton-chat serve`, or give another with --url."
