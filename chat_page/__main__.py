# SPDX-License-Identifier: Apache-2.0
"""Serve the chat page: `python -m chat_page`."""

import os
import signal
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from types import FrameType

import uvicorn

from chat_page.settings import PageSettings, parse_settings

# An open tab keeps a connection open, which would delay the end.
_SHUTDOWN_GRACE_S = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    # uvicorn raises the signal again after its shutdown. It must not end the process before the `with` block does.
    signal.signal(signal.SIGTERM, _exit)
    with TemporaryDirectory(prefix="triton_chat_page_") as uploads:
        # Gradio reads these when it is imported.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": uploads,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        _serve(settings)
    return 0


def _serve(settings: PageSettings) -> None:
    from chat_page.app import make_app

    uvicorn.run(
        make_app(settings),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
    )


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
