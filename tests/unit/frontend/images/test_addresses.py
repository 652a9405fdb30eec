# SPDX-License-Identifier: Apache-2.0
"""Images by http(s): URL: the allowed hosts and addresses, also of redirects."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from frontend.images.addresses import is_public
from tests.fakes.web_server import Web, fetchers, names, pixels, refused, response, web


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    async with fetchers(image_private_hosts=True) as make:
        yield make


PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


def test_which_addresses_are_public() -> None:
    assert [address for address in PRIVATE if is_public(address)] == []
    assert [address for address in PUBLIC if not is_public(address)] == []


@contextlib.contextmanager
def unreachable(address: str, port: int) -> Iterator[None]:
    """Let no connection to an address be made: Linux drops what comes while the queue of a listener is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


class TestHosts:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "localhost",
            "LOCALHOST",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:0:0:1]",
            "0",
            "127.0.0.1.",
            "localhost.",
        ],
    )
    async def test_loopback_in_any_notation(self, fetcher: Any, host: str) -> None:
        """The system's resolver accepts them without a network."""
        async with web(pixels) as server:
            message = await refused(fetcher(image_private_hosts=False), f"http://{host}:{server.port}/")
            assert not server.heads
        # A notation that httpx or this system's resolver does not accept is refused too, with another message.
        unread = host in ("127.0.0.1.", "localhost.") and "could not be fetched" in message
        assert unread or "not public, which is not allowed (image_private_hosts)" in message

    async def test_one_address_that_is_not_public_refuses_the_host(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            resolve = names(mixed=["93.184.215.14", "127.0.0.1"], turned=["127.0.0.1", "93.184.215.14"])
            images = fetcher(resolve, image_private_hosts=False)
            for host in ("mixed", "turned"):
                assert "not public" in await refused(images, f"http://{host}:{server.port}/")
            assert not server.heads

    async def test_connections_are_to_the_checked_address(self, fetcher: Any) -> None:
        """The second time, the name resolves to another address."""
        looked_up: list[str] = []

        async def rebinding(host: str, port: int) -> list[str]:
            looked_up.append(host)
            return ["127.0.0.1"] if len(looked_up) == 1 else ["203.0.113.1"]

        async with web(pixels) as server:
            url = f"http://rebinding.test:{server.port}/"
            assert await fetcher(rebinding).fetch([url]) == (b"pixels",)
            assert looked_up == ["rebinding.test"]
            assert server.heads[0]["host"] == f"rebinding.test:{server.port}"

    async def test_the_next_address_if_one_does_not_answer(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            images = fetcher(names(two_test=["127.0.0.9", "127.0.0.1"]))
            assert await images.fetch([f"http://two.test:{server.port}/"]) == (b"pixels",)

    async def test_dead_addresses_leave_time_for_the_others(self, fetcher: Any) -> None:
        async with web(pixels) as server, contextlib.AsyncExitStack() as stack:
            dead = [f"127.0.0.{number}" for number in range(2, 6)]
            for address in dead:
                stack.enter_context(unreachable(address, server.port))
            images = fetcher(names(partly_test=[*dead, "127.0.0.1"], dead_test=dead), image_timeout=3.0)
            assert await images.fetch([f"http://partly.test:{server.port}/"]) == (b"pixels",)
            began = asyncio.get_running_loop().time()
            assert "took longer than 3 s" in await refused(images, f"http://dead.test:{server.port}/")
            assert 2.9 < asyncio.get_running_loop().time() - began < 4.5

    async def test_only_hosts_that_are_listed(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            resolve = names(a_test=["127.0.0.1"], b_test=["127.0.0.1"])
            images = fetcher(resolve, image_hosts=("A.test", "other.test"))
            for host in ("a.test", "A.TEST"):
                assert await images.fetch([f"http://{host}:{server.port}/"]) == (b"pixels",)
            for host in ("b.test", "127.0.0.1", "xa.test", "a.test.b.test"):
                assert "not allowed (image_hosts)" in await refused(images, f"http://{host}:{server.port}/")

    async def test_a_listed_host_may_still_not_be_private(self, fetcher: Any) -> None:
        images = fetcher(names(a_test=["10.0.0.1"]), image_hosts=("a.test",), image_private_hosts=False)
        assert "(image_private_hosts)" in await refused(images, "http://a.test/")

    async def test_ipv6(self, fetcher: Any) -> None:
        async with web(pixels, host="::1") as server:
            assert await fetcher().fetch([f"http://[::1]:{server.port}/x"]) == (b"pixels",)
            assert server.heads[0]["host"] == f"[::1]:{server.port}"

    async def test_names_of_other_scripts(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            images = fetcher(names(**{"xn--eckwd4c7c_test": ["127.0.0.1"]}))
            assert await images.fetch([f"http://ドメイン.test:{server.port}/"]) == (b"pixels",)
            assert server.heads[0]["host"] == f"xn--eckwd4c7c.test:{server.port}"

    @pytest.mark.parametrize(
        "url",
        [
            "http://",
            "http:///x",
            "http://a b/",
            "http://a:99999/",
            "http://[::1/",
            "http://a\n/",
            "https:x",
            "http://a\0/",
        ],
    )
    async def test_invalid_urls(self, fetcher: Any, url: str) -> None:
        assert "image 1" in await refused(fetcher(names()), url)

    async def test_users_are_refused(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            for user in ("user:secret", "user", ":secret"):
                message = await refused(fetcher(), f"http://{user}@127.0.0.1:{server.port}/")
                assert "no user or password" in message and "secret" not in message
            assert not server.heads

    async def test_hosts_that_do_not_answer(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            port = server.port
        message = await refused(fetcher(names(gone_test=["127.0.0.1"])), f"http://gone.test:{port}/private/x?key=1")
        assert message == "messages: image 1: it could not be fetched"
        assert "could not be fetched" in await refused(fetcher(names(none_test=[])), "http://none.test/")
        assert "could not be fetched" in await refused(fetcher(names()), "http://unknown.test/")


class TestRedirects:
    async def reply(self, server: Web, path: str, writer: asyncio.StreamWriter) -> None:
        status, _, location = path.lstrip("/").partition("/")
        if status.startswith("loop"):
            location = f"/loop{int(status[4:] or 0) + 1}"
        if status.startswith(("3", "loop")):
            writer.write(response(b"moved", int(status[:3]) if status.isdigit() else 302, Location=location))
        else:
            writer.write(response())

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_followed(self, fetcher: Any, status: int) -> None:
        async with web(self.reply) as server:
            for target in ("/image", f"http://127.0.0.1:{server.port}/image", "../image", "//b.test:{}/image"):
                images = fetcher(names(a_test=["127.0.0.1"], b_test=["127.0.0.1"], **{"127_0_0_1": ["127.0.0.1"]}))
                url = f"http://a.test:{server.port}/{status}/{target.format(server.port)}"
                assert await images.fetch([url]) == (b"pixels",)
                assert server.paths[-1].endswith("/image")

    @pytest.mark.parametrize("most", [0, 1, 4])
    async def test_their_number_is_limited(self, fetcher: Any, most: int) -> None:
        async with web(self.reply) as server:
            message = await refused(fetcher(image_max_redirects=most), f"http://127.0.0.1:{server.port}/loop")
            assert f"redirects more than {most} times (image_max_redirects)" in message
            assert len(server.heads) == most + 1

    async def test_to_a_private_address(self, fetcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first host counts as public although the test can only listen on loopback."""
        monkeypatch.setattr(
            "frontend.images.addresses.is_public", lambda address: address == "127.0.0.1" or is_public(address)
        )
        async with web(self.reply) as server:
            inside = names(
                public_test=["127.0.0.1"], inside_test=["10.0.0.1"], **{"169_254_169_254": ["169.254.169.254"]}
            )
            images = fetcher(inside, image_private_hosts=False)
            start = f"http://public.test:{server.port}"
            assert await images.fetch([f"{start}/302/{start}/image"]) == (b"pixels",)
            for target in ("http://inside.test/", "http://169.254.169.254/latest", "//inside.test/x"):
                message = await refused(images, f"{start}/302/{target}")
                assert "not public" in message
                assert "10.0.0.1" not in message and "169.254" not in message and "inside" not in message

    async def test_to_a_host_that_is_not_listed(self, fetcher: Any) -> None:
        async with web(self.reply) as server:
            images = fetcher(names(a_test=["127.0.0.1"], b_test=["127.0.0.1"]), image_hosts=("a.test",))
            message = await refused(images, f"http://a.test:{server.port}/302/http://b.test:{server.port}/image")
            assert "(image_hosts)" in message and len(server.heads) == 1

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "data:,x", "ftp://a.test/", "gopher://a.test/"])
    async def test_to_other_schemes(self, fetcher: Any, target: str) -> None:
        async with web(self.reply) as server:
            message = await refused(fetcher(image_dirs=("/",)), f"http://127.0.0.1:{server.port}/302/{target}")
            assert "other than http: or https:" in message

    async def test_to_a_user(self, fetcher: Any) -> None:
        async with web(self.reply) as server:
            host = f"127.0.0.1:{server.port}"
            assert "no user" in await refused(fetcher(), f"http://{host}/302/http://user:secret@{host}/image")
