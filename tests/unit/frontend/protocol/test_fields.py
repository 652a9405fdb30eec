# SPDX-License-Identifier: Apache-2.0
"""Every field of the known clients and servers is decided: honoured, ignored or refused, and really so.

A newer client or vLLM with a new field fails these tests until someone decides.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from frontend.endpoints import messages_input, responses_input, stored_responses
from frontend.protocol.refused import reasons
from tests.fakes.fake_triton import Served
from tests.fakes.frontend_server import HELLO, WAIT, Serving, serving
from tests.support import field_table, peer_fields
from tests.support.doc_blocks import DOCS
from tests.support.field_table import ENDPOINTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The least body of each endpoint.
BODIES: Mapping[str, dict[str, Any]] = {
    "chat": HELLO,
    "completions": {"prompt": "Hi"},
    "responses": {"input": "Hi"},
    "messages": HELLO | {"max_tokens": 5},
    "embeddings": {"input": "Hi"},
    "rerank": {"query": "Hi", "documents": ["Ho"]},
    "score": {"text_1": "Hi", "text_2": "Ho"},
}
SOURCES: tuple[Callable[[], Mapping[str, Any]], ...] = (
    *(peer_fields.openai_fields, peer_fields.anthropic_fields, peer_fields.vllm_fields),
    *(lambda: peer_fields.SGLANG, lambda: peer_fields.VLLM_033),
)
# What no field takes.
WRONG: Any = [[None]]
# Read only beside others: what each needs.
NEEDS: Mapping[str, dict[str, Any]] = {"responses": {"include": [responses_input.LOGPROBS]}}
# Other names of a field, of which a body has one.
OTHER_NAMES = {
    **dict.fromkeys(("queries", "data_1"), "text_1"),
    **dict.fromkeys(("documents", "items", "data_2"), "text_2"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both() -> AsyncIterator[Serving]:
    async with serving() as one:
        one.triton.served = {
            "chat": Served("chat.", {"names": ["chat"]}),
            "embed": Served("", {"kind": "embedding", "names": ["embed"]}),
        }
        async with asyncio.timeout(WAIT):
            while (await one.http.get("/v1/models/embed")).status_code != 200:
                await asyncio.sleep(0.05)
        yield one


@pytest.mark.parametrize("source", SOURCES, ids=["openai", "anthropic", "vllm", "sglang", "vllm 0.33"])
async def test_every_field_is_decided(source: Callable[[], Mapping[str, Any]]) -> None:
    undecided = {name: set(fields) - ENDPOINTS[name].all() for name, fields in source().items()}
    assert not any(undecided.values()), undecided


@pytest.mark.parametrize("name", ENDPOINTS)
async def test_a_field_is_decided_once_and_with_a_reason(name: str) -> None:
    one = ENDPOINTS[name]
    assert len(one.all()) == len(one.honoured) + len(one.ignored) + len(one.refused)
    assert set(one.refused) <= set(reasons(one.refused))
    assert all(one.ignored.values())


async def test_what_is_said_to_be_converted_is_read() -> None:
    """The two endpoints without a model read their fields by name."""
    for modules in ((responses_input, stored_responses), (messages_input,)):
        source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
        for field in modules[0].CONVERTED:
            assert f'raw.get("{field}"' in source or f'raw["{field}"' in source, (modules[0].__name__, field)


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(name, field, id=f"{name}-{field}")
        for name, one in ENDPOINTS.items()
        for field in sorted(getattr(one, kind))
    ]


async def send(both: Serving, name: str, field: str, value: Any) -> Any:
    model = "chat" if ENDPOINTS[name].makes_chats else "embed"
    body = {"model": model} | BODIES[name] | NEEDS.get(name, {}) | {field: value}
    if name == "score":
        body.pop(OTHER_NAMES.get(field, ""), None)
    return await both.http.post(ENDPOINTS[name].path, json=body)


def about(response: Any, name: str) -> str:
    """The message of a 400 and its field. Anthropic's errors have no place for the field but the message."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    return str(error["message"] if name == "messages" else error["param"])


@pytest.mark.parametrize(("name", "field"), cases("refused"))
async def test_refused(both: Serving, name: str, field: str) -> None:
    assert field in about(await send(both, name, field, {"any": 1}), name)
    for harmless in (None, *ENDPOINTS[name].refused[field]):
        response = await send(both, name, field, harmless)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize(("name", "field"), cases("ignored"))
async def test_ignored(both: Serving, name: str, field: str) -> None:
    response = await send(both, name, field, WRONG)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("name", "field"), cases("honoured"))
async def test_honoured(both: Serving, name: str, field: str) -> None:
    """A field that is read is checked: a value that it cannot have is a 400 about it."""
    assert field in about(await send(both, name, field, WRONG), name)


async def test_the_documentation() -> None:
    """`python -m tests.support.field_table` prints what the page must have."""
    assert f"\n\n{field_table.table()}\n" in (DOCS / "request-fields.md").read_text(encoding="utf-8")
