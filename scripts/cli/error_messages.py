# SPDX-License-Identifier: Apache-2.0
"""Errors of a request as sentences for the person at the terminal."""

import ssl

import openai


def in_words(error: Exception, url: str) -> str:
    """What went wrong and, where it is known, what to do. url: the server that was asked."""
    if isinstance(error, openai.APITimeoutError):
        return f"{url} did not answer in time."
    if isinstance(error, openai.APIConnectionError):
        return _unreachable(error, url)
    if isinstance(error, openai.AuthenticationError):
        return f"{_told(error)} Give a key with --api-key or OPENAI_API_KEY."
    if isinstance(error, openai.NotFoundError) and not isinstance(error.body, dict):
        return f"{url} has no OpenAI API."
    if isinstance(error, openai.APIError):
        return _told(error)
    if isinstance(error, IndexError):
        return f"{url} serves no model."
    return str(error)


def _told(error: openai.APIError) -> str:
    """The server's own sentence, without the client's dump of the body around it."""
    told = error.body.get("message") if isinstance(error.body, dict) else None
    text = str(told or error.message).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _unreachable(error: BaseException, url: str) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) or "CERTIFICATE" in str(cause):
            return f"{url} has a certificate that is not trusted here. SSL_CERT_FILE=cert.pem names one that is."
        cause = cause.__cause__ or cause.__context__
    return f"nothing answers at {url}. Start a server with `triton-chat serve`, or give another with --url."
