# SPDX-License-Identifier: Apache-2.0
"""The hosts and addresses that images may be fetched from."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

from frontend.images.limits import FetchError

# Host and port -> the host's addresses as text, the preferred first.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Networks that `is_global` accepts in some version of Python, and that no image comes from.
_NOT_PUBLIC_4 = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata service is here
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
    IPv4Network("168.63.129.16/32"),  # the host's own service on a large cloud, reachable only from its machines
)
# IANA has assigned global unicast addresses only in 2000::/3.
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = (
    IPv6Network("2001::/23"),  # IETF protocol assignments, Teredo among them
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4: holds any IPv4 address
    IPv6Network("3fff::/20"),  # documentation
)
# With DNS64, every IPv4 host has such an address (RFC 6052). It is public if the IPv4 address in it is.
_NAT64 = IPv6Network("64:ff9b::/96")


async def system_resolve(host: str, port: int) -> list[str]:
    """Resolve a host with the system's resolver, which also accepts numeric hosts in any form (0x7f.1, 2130706433)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Hosts:
    """The hosts to which connections are allowed.

    allowed: their names; empty for all. private: addresses that are not public are allowed too.
    """

    def __init__(self, allowed: Sequence[str], private: bool, resolve: Resolve = system_resolve) -> None:
        self._allowed = {name.lower().rstrip(".") for name in allowed}
        self._private = private
        self._resolve = resolve

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Resolve a host to the addresses to connect to.

        A host is refused if any of its addresses is not public: a public host has no such address, so a name that
        has both kinds is misconfigured or an attack.
        Raises FetchError if the host is not allowed, OSError if it has no address.
        """
        if self._allowed and host.lower().rstrip(".") not in self._allowed:
            raise FetchError("its host is not allowed (image_hosts)")
        addresses = await self._resolve(host, port)
        if not addresses:
            raise OSError("no address")
        if not self._private and not all(is_public(address) for address in addresses):
            raise FetchError("its host has an address that is not public, which is not allowed (image_private_hosts)")
        return addresses


def is_public(text: str) -> bool:
    """Whether an address is a public address of the internet."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return _is_public_4(address)
    if address.ipv4_mapped is not None:
        return _is_public_4(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public_4(IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _is_public_4(address: IPv4Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    return not any(address in network for network in _NOT_PUBLIC_4)
