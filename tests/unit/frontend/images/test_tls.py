# SPDX-License-Identifier: Apache-2.0
"""Images by https: URL: the certificate is checked for the host name, although the connection is to an address."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.certificate import write_certificate
from tests.fakes.web_server import fetchers, names, pixels, refused, web


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    async with fetchers(image_private_hosts=True) as make:
        yield make


class TestTls:
    @pytest.fixture
    def tls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
        """A server's certificate for images.test and 127.0.0.1, which this test's fetchers trust."""
        pem = tmp_path / "certificate.pem"
        context = write_certificate(pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        return context

    async def test_the_host_name_is_sent_and_checked(self, fetcher: Any, tls: ssl.SSLContext) -> None:
        asked: list[str | None] = []
        tls.sni_callback = lambda _, name, __: asked.append(name)
        resolve = names(images_test=["127.0.0.1"], other_test=["127.0.0.1"], **{"127_0_0_1": ["127.0.0.1"]})
        async with web(pixels, tls) as server:
            images = fetcher(resolve)
            assert await images.fetch([f"https://images.test:{server.port}/"]) == (b"pixels",)
            assert server.heads[0]["host"] == f"images.test:{server.port}"
            # The same address under a name that is not in its certificate, also directly after the other.
            assert "could not be fetched" in await refused(images, f"https://other.test:{server.port}/")
            assert await images.fetch([f"https://127.0.0.1:{server.port}/"]) == (b"pixels",)
            assert len(server.heads) == 2
        assert asked == ["images.test", "other.test", None]

    async def test_untrusted_certificates_are_refused(
        self, fetcher: Any, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        async with web(pixels, tls) as server:
            images = fetcher(names(images_test=["127.0.0.1"]))
            assert "could not be fetched" in await refused(images, f"https://images.test:{server.port}/")
            assert not server.heads
