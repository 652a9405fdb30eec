# SPDX-License-Identifier: Apache-2.0
"""Serve the chat page: `triton-chat ui`, or `python -m chat_page`."""

import os
import socket
import sys
from collections.abc import Sequence

import uvicorn

from chat_page.server import make_app
from chat_page.settings import parse_settings

# An answer in progress would delay the end.
_SHUTDOWN_GRACE_S = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    ipv6 = ":" in settings.host
    try:
        listener = socket.create_server(
            (settings.host, settings.port), family=socket.AF_INET6 if ipv6 else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        print(
            f"error: no page at {settings.host}:{settings.port}: {error.strerror}. Change --host or --port.",
            file=sys.stderr,
        )
        return 1
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{settings.host}]" if ipv6 else settings.host
    config = uvicorn.Config(
        make_app(settings),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
    )
    try:
        config.load()
    except OSError:
        print(
            "error: --tls-certificate and --tls-key must be PEM files of a certificate and its key without a password.",
            file=sys.stderr,
        )
        return 2
    print(f"chat page: {scheme}://{host}:{listener.getsockname()[1]} for {settings.base_url}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
