# SPDX-License-Identifier: Apache-2.0
"""The peer: `vllm serve` of the same build with the same engine arguments."""

import os
import signal
import socket
import subprocess  # nosec B404 # fixed programs, no shell
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx

READY_TIMEOUT_S = 600.0


class VllmServe:
    """Context manager around one `vllm serve` process on a free loopback port."""

    def __init__(self, model: str, engine_flags: list[str], environment: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._environment = environment
        server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        self._command = [*server, "--model", model, "--host", "127.0.0.1", "--port", str(port), *engine_flags]

    def __enter__(self) -> "VllmServe":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # nosec B603 # fixed program, no shell
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        end = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"vllm serve did not become ready:\n{self._log.read_text(errors='replace')[-3000:]}")
