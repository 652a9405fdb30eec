# SPDX-License-Identifier: Apache-2.0
"""The health check of the container images: asks the server of this container, wherever it listens, over TLS or not.

Imports only the standard library, as it runs every few seconds.
"""

import argparse
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

TIMEOUT_S = 5
# The server's address if nothing else is set, as in `frontend.settings.Settings`.
HOST, PORT = "127.0.0.1", 9997
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # nosec B104 # translates, does not bind


def address(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The address of /health/ready: a flag overrides the environment, which overrides the default.

    command: the words of the container's first process; docker's --init and an entrypoint put others before ours.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", default=environment.get("TRITON_CHAT_HOST") or HOST)
    parser.add_argument("--port", default=environment.get("TRITON_CHAT_PORT") or PORT)
    parser.add_argument("--tls-certificate", default=environment.get("TRITON_CHAT_TLS_CERTIFICATE"))
    # "--" of docker's --init would end the flags.
    found, _ = parser.parse_known_args([word for word in command if word != "--"])
    host = _LOOPBACK.get(found.host, found.host)
    scheme = "https" if found.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{found.port}/health/ready"


def main() -> int:
    """Return 0 if the server is ready, else 1 with the reason on stderr."""
    words = Path("/proc/1/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    # The certificate names the address that clients use, not this one.
    context = ssl._create_unverified_context()  # nosec B323 # asks the server of this container
    # Without a proxy, which the environment of a container often names.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        with opener.open(address(words, os.environ), timeout=TIMEOUT_S):
            return 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
