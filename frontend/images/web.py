# SPDX-License-Identifier: Apache-2.0
"""Downloads `http:` and `https:` URLs, only from checked addresses."""

import asyncio

import httpx

from frontend import __version__
from frontend.images.addresses import Hosts
from frontend.images.limits import FetchError, Meter

MAX_CONNECTIONS = 256  # of the process
_HEADERS = {
    "User-Agent": f"triton-chat/{__version__}",
    "Accept": "*/*",
    # No compression: a small body must not expand to a large one before its bytes are counted.
    "Accept-Encoding": "identity",
}


class Web:
    """Downloads files. No state is kept or used: no cookies, no connections, no proxies of the environment.

    timeout: seconds that the caller gives a download; addresses that do not answer may take a part of them.
    """

    def __init__(self, hosts: Hosts, max_redirects: int, timeout: float) -> None:
        self._hosts = hosts
        self._timeout = timeout
        self._max_redirects = max_redirects
        # Connections are pooled by address: one that is kept alive would be used for another host of that address
        # without a check of that host's certificate.
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(limits=limits)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def download(self, url: str, meter: Meter) -> bytes:
        """Download a URL, following redirects.

        Raises FetchError, or an error of httpx, OSError or ValueError if the host does not answer correctly.
        """
        target = httpx.URL(url)
        deadline = asyncio.get_running_loop().time() + self._timeout
        for _ in range(self._max_redirects + 1):
            response = await self._get(target, deadline)
            try:
                if response.has_redirect_location:
                    target = target.join(response.headers["location"])
                    continue
                if not response.is_success:
                    raise FetchError(f"it could not be fetched: its host answered with status {response.status_code}")
                return await _body(response, meter)
            finally:
                await response.aclose()
        raise FetchError(f"it redirects more than {self._max_redirects} times (image_max_redirects)")

    async def _get(self, target: httpx.URL, deadline: float) -> httpx.Response:
        if target.scheme not in ("http", "https"):
            raise FetchError("it redirects to something other than http: or https:")
        if not target.host or target.userinfo:
            raise FetchError("its URL must name a host, and no user or password")
        host = target.raw_host.decode("ascii").strip("[]")
        port = target.port or (443 if target.scheme == "https" else 80)
        failure: httpx.TransportError | None = None
        addresses = await self._hosts.addresses(host, port)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # Connect to the checked address: resolving the name a second time could return another one.
            request = httpx.Request(
                "GET",
                target.copy_with(host=address, fragment=None),
                headers=_HEADERS | {"Host": target.netloc.decode("ascii")},
                extensions={"sni_hostname": host.rstrip("."), "timeout": {"connect": _share(deadline, left)}},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or OSError("no address")


def _share(deadline: float, addresses: int) -> float | None:
    """Return the seconds that connecting to the first of these addresses may take; None for all that are left.

    The others keep their shares, and one more is for the answer: else the first that is dead would take all.
    """
    left = deadline - asyncio.get_running_loop().time()
    return None if addresses == 1 else max(left, 0.0) / (addresses + 1)


async def _body(response: httpx.Response, meter: Meter) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        meter.fetch(len(part))
        body += part
    return bytes(body)
