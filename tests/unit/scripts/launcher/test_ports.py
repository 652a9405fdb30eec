# SPDX-License-Identifier: Apache-2.0
"""Ports: all that are taken are named at once, and Triton gets others unless its ports are named."""

import socket
from collections.abc import Iterator

import pytest

from scripts.cli import machine
from scripts.launcher import LaunchError
from scripts.launcher import ports as module
from scripts.launcher.options import LaunchOptions, parse_options
from scripts.launcher.ports import FREE_PORTS, choose_ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def test_every_taken_port_is_named(taken: int) -> None:
    options = parse_options([*FREE_PORTS, "--port", str(taken), "--ui", "--ui-port", str(taken)])
    with pytest.raises(LaunchError) as caught:
        choose_ports(options)
    assert str(caught.value).count(f"port {taken} on 127.0.0.1 cannot be used: Address already in use") == 2
    assert str(caught.value).endswith("Choose others with --port and --ui-port; 0 picks a free one.")


def test_the_frontends_metrics_port_is_checked_too(taken: int) -> None:
    metrics = f"--metrics-port={taken}"
    with pytest.raises(LaunchError, match=rf"port {taken} on 127\.0\.0\.1 cannot be used.*--metrics-port\.$"):
        choose_ports(parse_options([*FREE_PORTS, metrics]))
    with pytest.raises(LaunchError, match="--port and --metrics-port; 0 picks a free one, but for --metrics-port"):
        choose_ports(parse_options([*FREE_PORTS, f"--port={taken}", metrics]))
    # The doctor names it once.
    told = [finding for finding in machine.ports(parse_options([*FREE_PORTS, metrics])) if finding.verdict == "error"]
    assert len(told) == 1 and "--metrics-port" in told[0].text


def test_tritons_usual_port_gives_way(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = ["--port=0", "--triton-grpc-port=0", "--triton-metrics-port=0"]
    options, named = parse_options(free), parse_options([*free, "--triton-http-port", str(taken)])
    usual = LaunchOptions(triton_http_port=taken)
    monkeypatch.setattr(module, "LaunchOptions", lambda: usual)
    object.__setattr__(options, "triton_http_port", taken)
    ports = choose_ports(options)
    assert ports.http not in (0, taken)
    assert ports.notes == (f"port {taken} is taken, so Triton gets {ports.http} (--triton-http-port names another)",)
    with pytest.raises(LaunchError, match=f"port {taken} on 127.0.0.1 cannot be used"):
        choose_ports(named)


def test_an_address_of_another_machine() -> None:
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(LaunchError, match=f"'{host}' is not an address of this machine"):
            choose_ports(parse_options([*FREE_PORTS, "--host", host]))


def test_a_port_that_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(LaunchError, match=rf"port {port} on 127\.0\.0\.1 cannot be used.*--ui-port"):
        choose_ports(parse_options([*FREE_PORTS, f"--port={port}", "--ui", f"--ui-port={port}"]))
    # As --port 8000, which is also Triton's usual one.
    usual = LaunchOptions(triton_http_port=port)
    monkeypatch.setattr(module, "LaunchOptions", lambda: usual)
    options = parse_options([f"--port={port}", "--triton-grpc-port=0", "--triton-metrics-port=0"])
    object.__setattr__(options, "triton_http_port", port)
    ports = choose_ports(options)
    assert ports.frontend == port != ports.http
    assert ports.notes == (f"port {port} is taken, so Triton gets {ports.http} (--triton-http-port names another)",)
