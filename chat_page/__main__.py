# SPDX-License-Identifier: Apache-2.0
"""Serve the chat page: `triton-chat ui`, or `python -m chat_page`."""

import os
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
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"chat page: {scheme}://{host}:{settings.port} for {settings.base_url}", flush=True)
    uvicorn.run(
        make_app(settings),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
