# SPDX-License-Identifier: Apache-2.0
"""The server's certificate, which is loaded again when its files change: certificates are renewed while servers run."""

import logging
import ssl
from pathlib import Path

from common.files import file_version

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
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files, password="")  # nosec B106 # asks nobody
            self._context.load_cert_chain(*self._files, password="")  # nosec B106
        except OSError as error:
            logger.error("%s, %s: the certificate stays as it was: %s", *self._files, error)
        else:
            logger.info("%s: the certificate was loaded again", self._files[0])

    def _versions(self) -> tuple[tuple[int, ...], ...]:
        return tuple(file_version(Path(file)) for file in self._files)
