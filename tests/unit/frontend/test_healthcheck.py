# SPDX-License-Identifier: Apache-2.0
"""The health check of the images finds the server by the container's command and environment."""

import asyncio
from pathlib import Path

import pytest

from frontend import healthcheck
from frontend.healthcheck import address
from frontend.settings import Settings
from tests.fakes.certificate import write_certificate
from tests.fakes.frontend_server import serving

READY = "/health/ready"


@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        ("triton-chat serve /models", {}, "http://127.0.0.1:9997"),
        ("triton-chat serve /models --host=0.0.0.0 --port 8102 --max-model-len 4k", {}, "http://127.0.0.1:8102"),
        ("docker-init -- /opt/nvidia/nvidia_entrypoint.sh triton-chat serve --port=80", {}, "http://127.0.0.1:80"),
        ("python -m frontend", {"TRITON_CHAT_PORT": "81", "TRITON_CHAT_HOST": "::"}, "http://[::1]:81"),
        ("python -P -m frontend --port 82 --host 10.0.0.7", {"TRITON_CHAT_PORT": "81"}, "http://10.0.0.7:82"),
        ("python -m frontend --tls-certificate /c.pem --tls-key /k.pem", {}, "https://127.0.0.1:9997"),
        ("python -m frontend", {"TRITON_CHAT_TLS_CERTIFICATE": "/c.pem"}, "https://127.0.0.1:9997"),
    ],
)
def test_the_address(command: str, environment: dict[str, str], expected: str) -> None:
    assert address([*command.split(), ""], environment) == expected + READY


def test_the_defaults_are_the_settings() -> None:
    assert (Settings().host, Settings().port) == (healthcheck.HOST, healthcheck.PORT)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_server_that_is_ready_and_one_that_is_not(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = tmp_path / "pem"
    write_certificate(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    for name in ("http_proxy", "https_proxy"):  # as Docker sets them
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    settings = {"tls_certificate": str(pem), "tls_key": str(pem)} if tls else {}
    async with serving(**settings) as served:
        monkeypatch.setenv("TRITON_CHAT_PORT", served.url.rpartition(":")[2])
        if tls:
            monkeypatch.setenv("TRITON_CHAT_TLS_CERTIFICATE", str(pem))
        assert await asyncio.to_thread(healthcheck.main) == 0
        served.triton.unready = {"tensorrt_llm"}
        assert await asyncio.to_thread(healthcheck.main) == 1
    assert "503" in capsys.readouterr().err
    assert await asyncio.to_thread(healthcheck.main) == 1
    assert "refused" in capsys.readouterr().err
