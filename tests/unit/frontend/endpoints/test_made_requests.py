# SPDX-License-Identifier: Apache-2.0
"""Made-up requests to every endpoint: each is answered as the OpenAPI document says, and none is left over.

`python -m tests.soak attack` sends many more, to the whole stack.
"""

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from starlette.requests import Request

from frontend.endpoints.openapi import document
from tests.fakes.fake_triton import FakeTriton, Served
from tests.fakes.frontend_server import Serving, serving
from tests.soak.attack import Attacker
from tests.soak.made_requests import RequestMaker

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUESTS = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Serving]:
    triton = FakeTriton()
    triton.served["embedder"] = Served("embedder.", {"kind": "embedding", "names": ["embedder"]})
    async with serving(triton, admin_key="key", trust_request_chat_template=True, max_in_flight=4096) as one:
        yield one


@pytest.mark.parametrize("seed", ["a", "b"])
async def test_no_made_request_finds_a_fault(served: Serving, seed: str) -> None:
    maker = RequestMaker(document(), ["model"], seed, ["embedder"])
    tally = await Attacker(served.url, maker, "key").run(REQUESTS, 16)
    assert tally.findings == {}
    assert tally.requests == REQUESTS and tally.statuses["200"] > REQUESTS / 8
    assert [REGISTRY.get_sample_value("triton_chat_in_flight", {"model": one}) for one in ("model", "embedder")] == [
        0,
        0,
    ]
    assert (await served.chat(model="model")).status_code == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/rerank", {"query": "x", "documents": [{"text": 1}]}),
        ("/v1/score", {"text_1": ["x", "y"], "text_2": ["x"]}),
        ("/v1/embeddings", {"input": [{}]}),
    ],
)
async def test_a_refused_request_is_freed(served: Serving, path: str, fields: dict[str, Any]) -> None:
    """Each of these was kept for ever, with its body."""
    for _ in range(5):
        assert (await served.http.post(path, json=fields | {"model": "embedder"})).status_code == 400
    await served.http.get("/health/live")
    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, Request) and one.scope["path"] == path]
    # A connection may still know its last one.
    assert len(kept) <= 1


async def test_requests_are_made_by_their_seed() -> None:
    makers = [RequestMaker(document(), ["model"], seed) for seed in ("a", "a", "b")]
    first, same, other = ([maker.make() for _ in range(50)] for maker in makers)
    assert first == same != other
