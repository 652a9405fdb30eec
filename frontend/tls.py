# SPDX-License-Identifier: Apache-2.0
"""The server's certificate, which is loaded again when its files change: certificates are renewed while servers run."""

import logging
import ssl
from pathlib import Path

from common.files import file_version, reason
from frontend.settings import Settings, SettingsError

logger = logging.getLogger(__name__)


class Certificate:
    """The files of a certificate and its key, in the context of a server that uses them.

    New connections get what was loaded last; those that are open keep what they began with.
    """

    def __init__(self, certificate: str, key: str, context: ssl.SSLContext) -> None:
        self._files = (certificate, key)
        self._context = context
        self._loaded = self._versions()

    def refresh(self) -> None:
        """Load the files again if they have changed. If they cannot be used, the certificate stays as it is."""
        versions = self._versions()
        if versions == self._loaded:
            return
        self._loaded = versions
        try:
            # First elsewhere: of two files, one may be written before the other, and a context would keep that half.
            _load(*self._files)
            self._context.load_cert_chain(*self._files, password="")  # nosec B106
        except OSError as error:
            logger.error("%s, %s: the certificate stays as it was: %s", *self._files, error)
        else:
            logger.info("%s: the certificate was loaded again", self._files[0])

    def _versions(self) -> tuple[tuple[int, ...], ...]:
        return tuple(file_version(Path(file)) for file in self._files)


def check_certificate(settings: Settings) -> None:
    """Raise SettingsError if the certificate or the key of the settings cannot be used."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return
    for flag, file in (("--tls-certificate", certificate), ("--tls-key", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise SettingsError(f"{flag}={file!r}: expected a PEM file: {reason(error)}") from None
    try:
        _load(certificate, key)
    except ssl.SSLError as error:
        other = error.reason == "KEY_VALUES_MISMATCH"
        problem = "the key is not the certificate's" if other else "they are not PEM, or the key has a password"
        files = f"--tls-certificate={certificate!r}, --tls-key={key!r}"
        raise SettingsError(f"{files}: expected PEM files of a certificate and its key; {problem}") from None


def _load(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key, password="")  # nosec B106 # asks nobody
