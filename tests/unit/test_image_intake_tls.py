# SPDX-License-Identifier: Apache-2.0
"""Images by https: URL: the certificate is that of the name, though an address is connected to."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.web_server import fetchers, names, pixels, refused, web


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    async with fetchers(image_private_hosts=True) as make:
        yield make


class TestTls:
    @pytest.fixture
    def tls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
        """A server's certificate for images.test and 127.0.0.1, which this test's fetchers trust."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.test")])
        now = datetime.now(UTC)
        subjects = [x509.DNSName("images.test"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = tmp_path / "certificate.pem"
        pem.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    async def test_the_name_is_asked_for_and_checked(self, fetcher: Any, tls: ssl.SSLContext) -> None:
        asked: list[str | None] = []
        tls.sni_callback = lambda _, name, __: asked.append(name)
        resolve = names(images_test=["127.0.0.1"], other_test=["127.0.0.1"], **{"127_0_0_1": ["127.0.0.1"]})
        async with web(pixels, tls) as server:
            images = fetcher(resolve)
            assert await images.fetch([f"https://images.test:{server.port}/"]) == (b"pixels",)
            assert server.heads[0]["host"] == f"images.test:{server.port}"
            # The same address under a name that its certificate does not hold, also right after the other.
            assert "could not be fetched" in await refused(images, f"https://other.test:{server.port}/")
            assert await images.fetch([f"https://127.0.0.1:{server.port}/"]) == (b"pixels",)
            assert len(server.heads) == 2
        assert asked == ["images.test", "other.test", None]

    async def test_certificates_of_nobody_are_refused(
        self, fetcher: Any, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        async with web(pixels, tls) as server:
            images = fetcher(names(images_test=["127.0.0.1"]))
            assert "could not be fetched" in await refused(images, f"https://images.test:{server.port}/")
            assert not server.heads
