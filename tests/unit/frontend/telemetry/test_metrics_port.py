# SPDX-License-Identifier: Apache-2.0
"""Metrics at a port of their own."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx

from frontend.telemetry.metrics_port import PATHS
from tests.fakes.fake_triton import FakeTriton
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, frontend_processes


async def test_the_metrics_are_at_their_port_only(tmp_path: Path) -> None:
    """Two processes share the port, as they share that of the API."""
    triton = FakeTriton()
    await triton.start()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        try:
            async with (
                frontend_processes(triton, 2, tmp_path, "--metrics-port", str(port)) as started,
                httpx.AsyncClient(timeout=WAIT) as http,
            ):
                for one in started:
                    assert (await http.post(one.url + CHAT, json=HELLO)).status_code == 200
                    for path in (*PATHS, "//metrics", "/metrics/"):
                        response = await http.get(one.url + path)
                        assert response.status_code == 404, path
                        assert response.json()["error"]["code"] == "not_found"
                text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
                name = 'triton_chat_requests_total{endpoint="chat",model="triton-chat",outcome="ok"}'
                assert f"{name} 2.0" in text.splitlines()
                assert "vllm:" in (await http.get(f"http://127.0.0.1:{port}/metrics/vllm")).text
                for path in ("/health/live", "/v1/models", "/"):
                    assert (await http.get(f"http://127.0.0.1:{port}{path}")).status_code == 404
        finally:
            await triton.stop()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "frontend", "--port", "0", "--metrics-port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port}: cannot listen" in done.stderr
