# SPDX-License-Identifier: Apache-2.0
"""Authentication by API keys, from the settings and from a file that is read again when it changes."""

import ipaddress
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers

from common.files import file_version, reason
from frontend.auth.keys import ApiKey, KeyIndex, digest, read_keys
from frontend.auth.quotas import Limits, Quota
from frontend.auth.shared_use import SharedFile
from frontend.errors import ApiError
from frontend.settings import SETTING_KEY, Settings, SettingsError

logger = logging.getLogger(__name__)

RELOAD_PERIOD = 1.0  # seconds between two checks whether the file has changed
PROTECTED = ("/v1/", "/v2/", "/tokenize", "/detokenize", "/rerank", "/score")
ADMIN = ("/admin/", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")  # paths that need the admin key instead


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. models: what they may use; None for all.

    owner: whose stored responses they see. Keys of the settings have a number for a name, which another key may get.
    """

    name: str
    owner: str
    quota: Quota
    models: frozenset[str] | None


class Authenticator:
    """Checks API keys, if there are any, and holds the quota of each.

    Frontends that share a folder for their metrics share the quotas too. Raises SettingsError if the folder or the file
    of API keys cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.cors_allow_origins)
        self._defaults = Limits(settings.api_key_rate, settings.api_key_burst, settings.api_key_concurrent)
        self._fixed = tuple(
            ApiKey(f"{SETTING_KEY}{i}", digest(key), Limits()) for i, key in enumerate(settings.api_key, 1)
        )
        admin = settings.admin_key
        self._admin = None if admin is None else KeyIndex([ApiKey("admin", digest(admin), Limits())])
        self._path = None if settings.api_keys_file is None else Path(settings.api_keys_file)
        self._checked_at = float("-inf")
        self._version: tuple[int, ...] | None = None
        self._quotas: dict[str, Quota] = {}
        self._shared = _shared_file() if self._fixed or self._path else None
        self._index = KeyIndex(())
        self._use(() if self._path is None else _first_keys(self._path))

    def authenticate(self, headers: Headers) -> Caller | None:
        """Return whose key the request has; None if no key is needed. Raises ApiError."""
        if self._path is not None:
            self._reload(self._path)
        elif not self._fixed:
            return None
        given = _sent_key(headers)
        key = None if given is None else self._index.find(given)
        if key is None:
            raise ApiError("bad_key", "A valid API key is required: Authorization: Bearer <key>, or x-api-key: <key>")
        owner = SETTING_KEY + key.digest.hex() if key.name.startswith(SETTING_KEY) else key.name
        return Caller(key.name, owner, self._quotas[key.name], key.models)

    def check_admin(self, headers: Headers) -> None:
        """Raise ApiError unless the request has the admin key. Without such a key the path does not exist."""
        if self._admin is None:
            raise ApiError("unknown_path", "There is nothing at this path")
        given = _bearer(headers)
        if given is None:
            raise ApiError("bad_key", "The admin key is required: Authorization: Bearer <key>")
        if self._admin.find(given) is None:
            raise ApiError("not_admin", "This needs the admin key")

    def check_origin(self, headers: Headers) -> None:
        """Raise ApiError for a POST or DELETE of a web page whose origin is not allowed.

        CORS does not help: a browser sends such a POST and only withholds the response. No page is served here, so no
        origin is trusted by default, which also stops DNS rebinding.
        """
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and "*" not in self._origins:
            raise ApiError("bad_origin", "Pages of this origin may not call this server (cors_allow_origins)")

    def _reload(self, path: Path) -> None:
        """Read the file again if it has changed. If it cannot be used, the keys stay as they are."""
        now = time.monotonic()
        if now - self._checked_at < RELOAD_PERIOD:
            return
        self._checked_at = now
        version = file_version(path)
        if version == self._version:
            return
        first, self._version = self._version is None, version
        try:
            self._use(read_keys(path))
        except (OSError, ValueError) as error:
            logger.error("%s: the API keys stay as they were: %s", path, error)
        else:
            if not first:
                logger.info("%s: %d API keys", path, len(self._quotas) - len(self._fixed))

    def _use(self, from_file: Iterable[ApiKey]) -> None:
        keys = [*self._fixed, *from_file]
        # A key's quota is kept under its name, so that a change of the file does not reset it.
        quotas: dict[str, Quota] = {}
        for key in keys:
            limits = self._with_defaults(key.limits)
            quotas[key.name] = quota = self._quotas.get(key.name) or self._new_quota(key.name, limits)
            quota.change(limits)
        # Both at the end, as a quota may fail.
        self._index, self._quotas = KeyIndex(keys), quotas

    def _new_quota(self, name: str, limits: Limits) -> Quota:
        return Quota(limits, use=None if self._shared is None else self._shared.of(name))

    def _with_defaults(self, own: Limits) -> Limits:
        return Limits(
            own.rate or self._defaults.rate,
            own.burst or (self._defaults.burst if own.rate is None else None),
            own.concurrent or self._defaults.concurrent,
        )


def warnings(settings: Settings) -> list[str]:
    """Return warnings about a server that others can reach without keys or TLS; none for a loopback address."""
    if is_loopback(settings.host):
        return []
    lines = []
    if not settings.api_key and settings.api_keys_file is None:
        lines.append(
            f"ANYBODY WHO CAN REACH {settings.host}:{settings.port} MAY USE THIS MODEL: no API keys are set "
            "(api_keys_file, api_key)"
        )
    if settings.tls_certificate is None:
        lines.append(
            f"PROMPTS, ANSWERS AND KEYS CROSS THE NETWORK IN THE CLEAR at {settings.host}:{settings.port}: no TLS "
            "(tls_certificate, tls_key); fine only behind a proxy that has it"
        )
    return lines


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _sent_key(headers: Headers) -> str | None:
    """Return the key that a request sent as a Bearer, or without Authorization in x-api-key."""
    if "authorization" in headers:
        return _bearer(headers)
    keys = headers.getlist("x-api-key")
    return keys[0].strip() if len(keys) == 1 else None


def _bearer(headers: Headers) -> str | None:
    """Return the key that a request sent; None without one, or with two: a proxy may have checked the other."""
    sent = headers.getlist("authorization")
    scheme, _, given = (sent[0] if len(sent) == 1 else "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _first_keys(path: Path) -> tuple[ApiKey, ...]:
    try:
        return read_keys(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--api-keys-file={str(path)!r}: expected a file of API keys: {reason(error)}") from None


def _shared_file() -> SharedFile | None:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return None
    try:
        return SharedFile(Path(folder, "limits"))
    except OSError as error:
        problem = f"cannot hold the limits of keys: {reason(error)}"
        raise SettingsError(f"PROMETHEUS_MULTIPROC_DIR={folder!r}: {problem}") from None
