# SPDX-License-Identifier: Apache-2.0
"""Choose free ports, and name the flag of a port that is taken."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from scripts.launcher.errors import LaunchError
from scripts.launcher.options import LaunchOptions

# Launcher flags that let it choose every port.
FREE_PORTS = ("--port=0", "--triton-http-port=0", "--triton-grpc-port=0", "--triton-metrics-port=0")


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one stack; `ui` is 0 without a chat page."""

    frontend: int
    http: int
    grpc: int
    metrics: int
    ui: int = 0


def choose_ports(options: LaunchOptions) -> Ports:
    """The ports of the options, with a free port for each 0.

    Raises LaunchError naming the flag of a port that is taken.
    """
    wanted = [
        ("--port", options.host, options.port),
        ("--triton-http-port", options.triton_host, options.triton_http_port),
        ("--triton-grpc-port", options.triton_host, options.triton_grpc_port),
        ("--triton-metrics-port", options.triton_host, options.triton_metrics_port),
    ]
    if options.ui:
        wanted.append(("--ui-port", options.ui_host, options.ui_port))
    # All are held until the last is chosen, so that two 0s never get the same one.
    with ExitStack() as held:
        return Ports(*[held.enter_context(_held(*each)) for each in wanted])


@contextmanager
def _held(flag: str, host: str, port: int) -> Iterator[int]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror:
        raise LaunchError(
            f"'{host}' is no address of this machine.", "Change --host, --triton-host or --ui-host."
        ) from None
    with socket.socket(family) as listener:
        # As servers do. Without it, connections that have just closed would make a free port look taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise LaunchError(
                f"port {port} on {host} cannot be used: {error.strerror}.", f"Choose another with {flag}; 0 picks one."
            ) from None
        yield listener.getsockname()[1]
