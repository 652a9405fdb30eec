# SPDX-License-Identifier: Apache-2.0
"""Choose free ports, and name the flags of ports that are taken."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from common.command_line import flag_of
from common.files import reason
from frontend.settings import ENV_PREFIX
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import LaunchOptions

# Launcher flags that let it choose every port.
FREE_PORTS = ("--port=0", "--triton-http-port=0", "--triton-grpc-port=0", "--triton-metrics-port=0")
# Triton's own ports, which most people never use: unless they are named, another one will do as well.
_TRITONS = ("triton_http_port", "triton_grpc_port", "triton_metrics_port")
# The frontend's setting `--metrics-port`.
METRICS_PORT = f"{ENV_PREFIX}METRICS_PORT"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one stack; `ui` is 0 without a chat page. notes: lines about ports that are not the usual ones."""

    frontend: int
    http: int
    grpc: int
    metrics: int
    ui: int = 0
    notes: tuple[str, ...] = ()


def choose_ports(options: LaunchOptions) -> Ports:
    """The ports of the options, with a free port for each 0, and for each of Triton's that is taken and not named.

    Raises LaunchError naming the flags of all ports that cannot be used.
    """
    names = ["port", *_TRITONS, *(["ui_port"] if options.ui else [])]
    hosts = {"port": options.host, "ui_port": options.ui_host}
    chosen: list[int] = []
    notes: list[str] = []
    problems: dict[str, str] = {}
    # All are held until the last is chosen, so that two 0s never get the same one.
    with ExitStack() as held:
        for name in names:
            host, port = hosts.get(name, options.triton_host), getattr(options, name)
            try:
                chosen.append(held.enter_context(_held(host, port)))
            except OSError as error:
                # 8000 that is named is wanted.
                usual = port == getattr(LaunchOptions(), name) and name not in options.given
                if name in _TRITONS and usual and error.errno == errno.EADDRINUSE:
                    chosen.append(held.enter_context(_held(host, 0)))
                    notes.append(f"port {port} is taken, so Triton gets {chosen[-1]} ({flag_of(name)} names another)")
                else:
                    problems[name] = f"port {port} on {host} cannot be used: {reason(error)}"
        # A setting of the frontend, which never picks a port by itself. What is no number is an error of the settings.
        metrics_port = options.settings.get(METRICS_PORT, "")
        if metrics_port.isdecimal() and int(metrics_port) < 2**16:
            try:
                held.enter_context(_held(options.host, int(metrics_port)))
            except OSError as error:
                problems["metrics_port"] = f"port {metrics_port} on {options.host} cannot be used: {reason(error)}"
    if problems:
        flags = " and ".join(map(flag_of, problems))
        others = "another" if len(problems) == 1 else "others"
        advice = f"Choose {others} with {flags}"
        if problems.keys() - {"metrics_port"}:
            advice += "; 0 picks a free one" + (", but for --metrics-port" if "metrics_port" in problems else "")
        raise LaunchError(f"{'; '.join(problems.values())}.", f"{advice}.")
    frontend, http, grpc, metrics, *ui = chosen
    return Ports(frontend, http, grpc, metrics, ui[0] if ui else 0, tuple(notes))


@contextmanager
def _held(host: str, port: int) -> Iterator[int]:
    """Listen on a port for a while; raises OSError if it is taken, LaunchError for a foreign address."""
    foreign = LaunchError(f"'{host}' is not an address of this machine.", "Change --host, --triton-host or --ui-host.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror:
        raise foreign from None
    with socket.socket(family) as listener:
        # As servers do. Without it, connections that have just closed would make a free port look taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            # Until one listens, several may have the same port.
            listener.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise foreign from None
            raise
        yield listener.getsockname()[1]
