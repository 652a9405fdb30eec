# SPDX-License-Identifier: Apache-2.0
"""Parts of the frontend that need no server: settings, merging, errors, images."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from common.errors import RequestError
from frontend.errors import describe, upstream_error
from frontend.images import ImageFetcher
from frontend.settings import Settings, SettingsError
from frontend.triton.cancellations import MIN_INTERVAL, Cancellations
from frontend.triton.deltas import complete_tool_calls, merge
from frontend.triton.tensors import Delta
from tests.fakes.frontend_server import free_server


def test_flag_over_environment_over_default() -> None:
    environment = {"TRITON_CHAT_PORT": "1", "TRITON_CHAT_HOST": "0.0.0.0", "TRITON_CHAT_SERVED_MODEL_NAME": "a, b"}
    settings = Settings.load(["--port", "2", "--inline-reasoning"], environment)
    assert (settings.port, settings.host, settings.request_timeout) == (2, "0.0.0.0", 600.0)
    assert (settings.served_model_name, settings.inline_reasoning) == (("a", "b"), True)
    repeated = Settings.load(["--served-model-name", "x", "--served-model-name", "y,z"], environment)
    assert repeated.served_model_name == ("x", "y", "z")


@pytest.mark.parametrize(
    ("flags", "environment", "key", "value"),
    [
        (["--port", "99999"], {}, "--port", "99999"),
        (["--port", "1", "--port", "2"], {}, "--port", "1,2"),
        ([], {"TRITON_CHAT_REQUEST_TIMEOUT": "soon"}, "TRITON_CHAT_REQUEST_TIMEOUT", "soon"),
        ([], {"TRITON_CHAT_ENABLE_THINKING": "maybe"}, "TRITON_CHAT_ENABLE_THINKING", "maybe"),
        ([], {"TRITON_CHAT_SERVED_MODEL_NAME": ","}, "served_model_name", ""),
        (["--tls-key", "key.pem"], {}, "tls_certificate", "None"),
    ],
)
def test_a_bad_value_names_key_and_value(flags: list, environment: dict, key: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(flags, environment)
    assert key in str(caught.value)
    assert value in str(caught.value)


def start(index: int) -> dict[str, Any]:
    function = {"name": f"f{index}", "arguments": ""}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


def arguments(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": text}}


DELTAS = [
    Delta(reasoning="be"),
    Delta(text="a", logprobs=({"token": "a"},)),
    Delta(tool_calls=(start(0), arguments(0, '{"'))),
    Delta(tool_calls=(arguments(0, 'x":'), arguments(0, "1}"))),
    Delta(tool_calls=(start(1), arguments(1, "{}"))),
    Delta(text="b", finish_reason="tool_calls", completion_tokens=3, prompt_tokens=2),
]


def test_merging_in_any_groups_says_the_same() -> None:
    whole = merge(DELTAS)
    wanted = complete_tool_calls(call for delta in DELTAS for call in delta.tool_calls)
    assert [call["function"]["arguments"] for call in wanted] == ['{"x":1}', "{}"]
    for cuts in itertools.product((False, True), repeat=len(DELTAS) - 1):
        groups: list[list[Delta]] = [[DELTAS[0]]]
        for delta, cut in zip(DELTAS[1:], cuts, strict=True):
            if cut:
                groups.append([delta])
            else:
                groups[-1].append(delta)
        merged = [merge(group) for group in groups]
        assert complete_tool_calls(call for delta in merged for call in delta.tool_calls) == wanted
        assert merge(merged) == whole


def test_a_merged_delta_has_each_call_start_alone() -> None:
    calls = merge(DELTAS).tool_calls
    assert calls == (start(0), arguments(0, '{"x":1}'), start(1), arguments(1, "{}"))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request", 400),
        ("context_length", 400),
        ("cancelled", 499),
        ("timeout", 504),
        ("unavailable", 503),
        ("internal", 500),
    ],
)
def test_errors_keep_their_kind_through_triton(kind: Any, status: int) -> None:
    sent = RequestError("why", kind=kind, param="prompt")
    got = upstream_error(f"in ensemble 'ensemble', Failed to process: {sent.encode()}\nat line 3")
    assert (got.kind, got.message, got.param) == (kind, "why", "prompt")
    assert describe(got)[0].status == status


async def test_late_responses_repeat_a_stop_but_not_often() -> None:
    sent: list[float] = []
    now = asyncio.get_running_loop().time
    stops = Cancellations(lambda _: sent.append(now()))
    stops.add("one")
    until = now() + 2.5 * MIN_INTERVAL
    while now() < until:
        stops.late_response("one")
        stops.late_response("never cancelled")
        await asyncio.sleep(0.01)
    # The pauses alone would have given two: at the start and after one interval.
    assert len(sent) == 3
    assert all(later - earlier >= MIN_INTERVAL for earlier, later in itertools.pairwise(sent))
    stops.done("one")
    assert len(stops) == 0


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    made: list[ImageFetcher] = []

    def make(**settings: Any) -> ImageFetcher:
        made.append(ImageFetcher(Settings(**settings)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def test_files_only_from_allowed_directories(fetcher: Any, tmp_path: Path) -> None:
    allowed, outside = tmp_path / "images", tmp_path / "outside.png"
    allowed.mkdir()
    (allowed / "an image.png").write_bytes(b"pixels")
    (allowed / "link.png").symlink_to(outside)
    outside.write_bytes(b"secret")
    images = fetcher(image_dirs=(str(allowed),), image_max_bytes=10)
    assert await images.fetch([f"file://{allowed}/an%20image.png"]) == (b"pixels",)
    (allowed / "large.png").write_bytes(b"x" * 11)
    for name in ("../outside.png", "link.png", "missing.png", "large.png", ""):
        with pytest.raises(RequestError):
            await images.fetch([f"file://{allowed}/{name}"])


async def image_app(scope: Any, receive: Any, send: Any) -> None:
    """A web server with an image, a redirect to it, a redirect to itself, a redirect to a file, a large image."""
    redirects = {"/moved": "/image", "/loop": "/loop", "/file": "file:///etc/passwd"}
    path = scope["path"]
    status = 302 if path in redirects else 200
    headers = [(b"location", redirects[path].encode())] if path in redirects else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 1000 if path == "/large" else b"pixels"})


async def test_images_from_the_web(fetcher: Any) -> None:
    async with free_server(uvicorn.Config(image_app, log_level="error", lifespan="off")) as url:
        images = fetcher(image_private_hosts=True, image_max_bytes=100, image_timeout=5.0)
        named = url.replace("127.0.0.1", "localhost")
        assert await images.fetch([f"{url}/image", f"{named}/moved"]) == (b"pixels", b"pixels")
        for path in ("loop", "file", "large"):
            with pytest.raises(RequestError):
                await images.fetch([f"{url}/{path}"])
        with pytest.raises(RequestError, match="not allowed"):
            await fetcher().fetch([f"{named}/image"])
        with pytest.raises(RequestError, match="not allowed"):
            await fetcher(image_private_hosts=True, image_hosts=("example.org",)).fetch([f"{url}/image"])
    with pytest.raises(RequestError, match="could not be fetched"):
        await images.fetch([f"{url}/image"])


async def test_number_and_size_of_images(fetcher: Any) -> None:
    images = fetcher(max_images=2, image_max_bytes=4)
    url = "data:image/png;base64,cGl4"
    assert await images.fetch([url, url]) == (b"pix", b"pix")
    with pytest.raises(RequestError, match="at most 2"):
        await images.fetch([url] * 3)
    with pytest.raises(RequestError, match="larger"):
        await images.fetch(["data:image/png;base64,cGl4ZWxz"])
