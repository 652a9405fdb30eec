# SPDX-License-Identifier: Apache-2.0
"""Images by URL: data:, http(s): and file:, each within its limits."""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from frontend.settings import Settings
from preprocessing.errors import RequestError

MAX_REDIRECTS = 3


class ImageFetcher:
    """Fetches the encoded bytes of images. Every refusal is a RequestError on `messages`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directories = [Path(directory).resolve() for directory in settings.image_dirs]
        # Proxies of the environment would be asked to resolve hosts, past the address check.
        self._http = httpx.AsyncClient(timeout=settings.image_timeout, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def fetch(self, urls: Sequence[str]) -> tuple[bytes, ...]:
        """The images in the order of their URLs."""
        if len(urls) > self._settings.max_images:
            raise _refused(f"at most {self._settings.max_images} images are allowed")
        return tuple(await asyncio.gather(*(self._fetch(url) for url in urls)))

    async def _fetch(self, url: str) -> bytes:
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return self._decode(url)
        if scheme == "file":
            return await asyncio.to_thread(self._read, url)
        if scheme in ("http", "https"):
            try:
                async with asyncio.timeout(self._settings.image_timeout):
                    return await self._download(url)
            except (TimeoutError, httpx.TimeoutException):
                raise _refused(f"an image took longer than {self._settings.image_timeout:g} s") from None
            except RequestError:
                raise
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
                raise _refused("an image could not be fetched") from None
        raise _refused("an image URL must begin with data:, http:, https: or file:")

    def _decode(self, url: str) -> bytes:
        header, comma, data = url.partition(",")
        if not comma or not header.endswith(";base64"):
            raise _refused("a data: URL must hold base64")
        try:
            decoded = base64.b64decode(unquote(data), validate=True)
        except ValueError:
            raise _refused("a data: URL holds no valid base64") from None
        self._check_size(decoded)
        return decoded

    def _read(self, url: str) -> bytes:
        """A file in one of the allowed directories; what it leads to by symbolic links counts."""
        try:
            path = Path(unquote(urlsplit(url).path)).resolve()
            allowed = any(path.is_relative_to(directory) for directory in self._directories)
            if not allowed or not path.is_file():
                raise _refused("a file: URL must name a file in a directory that the server allows")
            with path.open("rb") as file:
                data = file.read(self._settings.image_max_bytes + 1)
            self._check_size(data)
            return data
        except RequestError:
            raise
        except (OSError, ValueError):
            raise _refused("a file: URL could not be read") from None

    async def _download(self, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            target = httpx.URL(url)
            if target.scheme not in ("http", "https") or not target.host:
                raise _refused("an image URL must name a host")
            address = await self._address(target.host, target.port or (443 if target.scheme == "https" else 80))
            # The checked address itself is connected to: a second look-up could give another one.
            request = self._http.build_request("GET", target.copy_with(host=address))
            request.headers["Host"] = target.netloc.decode()
            request.extensions["sni_hostname"] = target.host
            response = await self._http.send(request, stream=True)
            try:
                if response.is_redirect:
                    url = str(target.join(response.headers["location"]))
                    continue
                response.raise_for_status()
                return await self._body(response)
            finally:
                await response.aclose()
        raise _refused("an image URL redirects too often")

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            self._check_size(body)
        return bytes(body)

    async def _address(self, host: str, port: int) -> str:
        """An address of the host that may be connected to."""
        if self._settings.image_hosts and host not in self._settings.image_hosts:
            raise _refused("the host of an image URL is not allowed")
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._settings.image_private_hosts:
            addresses = [address for address in addresses if _is_public(address)]
        if not addresses:
            raise _refused("the host of an image URL is not allowed")
        return addresses[0]

    def _check_size(self, data: bytes | bytearray) -> None:
        if len(data) > self._settings.image_max_bytes:
            raise _refused(f"an image is larger than {self._settings.image_max_bytes} bytes")


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.is_global and not parsed.is_multicast


def _refused(message: str) -> RequestError:
    return RequestError(f"messages: {message}", param="messages")
