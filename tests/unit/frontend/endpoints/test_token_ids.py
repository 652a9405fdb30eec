# SPDX-License-Identifier: Apache-2.0
"""The fields that `return_token_ids` and `prompt_logprobs` add to answers, in vLLM's form."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from frontend.endpoints.prompt_logprobs import of_prompt
from frontend.protocol.common import GenerationBody
from frontend.triton.tensors import Delta
from tests.fakes.fake_triton import Call, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS = "/v1/completions"
BODIES: dict[str, dict[str, Any]] = {CHAT: HELLO, COMPLETIONS: {"prompt": "Hi"}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def token(token_id: int, rank: int | None, logprob: float | None, *top: Any) -> Any:
    return {"token": f"t{token_id}", "logprob": logprob, "bytes": [], "id": token_id, "rank": rank, "top_logprobs": top}


PROMPT = [token(1, None, None), token(2, 9, -3.5, token(5, 1, -0.5), token(6, 2, -1.0))]


async def script(call: Call) -> AsyncIterator[Any]:
    first: dict[str, Any] = {}
    if "prompt_token_ids" in call.parameters:
        first["prompt_token_ids"] = [1, 2]
    if "prompt_logprobs" in call.parameters:
        first["prompt_logprobs"] = PROMPT
    yield reply("a", token_ids=[3], **first)
    yield reply("", token_ids=[4])  # held back: the token is not yet a text
    yield reply("b", token_ids=[5])
    yield finish(completion=4, token_ids=[7])


SETTINGS = {"max_model_len": 4096}


@pytest.fixture
def served(served: Serving) -> Serving:
    served.triton.script = script
    return served


async def whole(served: Serving, path: str, **fields: Any) -> Any:
    response = await served.http.post(path, json=BODIES[path] | fields)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("path", BODIES)
async def test_whole_answers(served: Serving, path: str) -> None:
    body = await whole(served, path, return_token_ids=True, n=2)
    assert [choice["token_ids"] for choice in body["choices"]] == [[3, 4, 5, 7]] * 2
    of_prompt = [body] if path == CHAT else body["choices"]
    assert [one["prompt_token_ids"] for one in of_prompt] == [[1, 2]] * len(of_prompt)
    # One choice asks the engine, for all.
    assert [call.parameters.get("prompt_token_ids") for call in served.triton.calls] == [True, None]
    assert "prompt_logprobs" not in body["choices"][0] and "prompt_logprobs" not in body


@pytest.mark.parametrize("path", BODIES)
async def test_streams(served: Serving, path: str) -> None:
    """Every id is in a chunk, also of tokens whose text is held back, and none is there twice."""
    chunks = await served.chunks(path, **BODIES[path], return_token_ids=True)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [one for choice in choices for one in choice.get("token_ids", ())] == [3, 4, 5, 7]
    assert choices[-1]["finish_reason"] == "stop"
    found = [one.get("prompt_token_ids") for one in (chunks if path == CHAT else choices)]
    assert [one for one in found if one] == [[1, 2]]
    assert found.index([1, 2]) == (1 if path == CHAT else 0)


@pytest.mark.parametrize("path", BODIES)
async def test_nothing_is_added_unasked(served: Serving, path: str) -> None:
    for body in (await whole(served, path), *await served.chunks(path, **BODIES[path])):
        names = {*body, *body["choices"][0]}
        assert not names & {"token_ids", "prompt_token_ids", "prompt_logprobs"}
    assert not {"token_ids", "prompt_token_ids", "prompt_logprobs"} & {*served.triton.calls[0].parameters}


@pytest.mark.parametrize("path", BODIES)
async def test_log_probabilities_of_the_prompt(served: Serving, path: str) -> None:
    body = await whole(served, path, prompt_logprobs=1, n=2)
    row = {
        "2": {"logprob": -3.5, "rank": 9, "decoded_token": "t2"},
        "5": {"logprob": -0.5, "rank": 1, "decoded_token": "t5"},
    }
    for one in [body] if path == CHAT else body["choices"]:
        assert one["prompt_logprobs"] == [None, row]
    assert [call.parameters.get("prompt_logprobs") for call in served.triton.calls] == [1, None]


async def test_several_prompts(served: Serving) -> None:
    await whole(served, COMPLETIONS, prompt=["a", "b"], n=2, prompt_logprobs=0)
    assert [call.parameters.get("prompt_logprobs") for call in served.triton.calls] == [0, None, 0, None]
    assert [call.parameters.get("prompt_logprobs_choices") for call in served.triton.calls] == [4, None, 4, None]


@pytest.mark.parametrize("fields", [{"prompt_logprobs": 1}, {"echo": True, "logprobs": 1}])
async def test_the_engine_computes_a_prompt_once(served: Serving, fields: dict[str, Any]) -> None:
    """All choices of a prompt have its values, and `preprocessing`, which bounds them, knows how many there are."""
    body = await whole(served, COMPLETIONS, n=3, **fields)
    asked = [
        (call.parameters.get("prompt_logprobs"), call.parameters.get("prompt_logprobs_choices"))
        for call in served.triton.calls
    ]
    assert asked == [(1, 3), (None, None), (None, None)]
    name = "logprobs" if "echo" in fields else "prompt_logprobs"
    first, *others = [choice[name] for choice in body["choices"]]
    assert others == [first, first]
    assert first["tokens"] == ["t1", "t2"] if "echo" in fields else first[0] is None and len(first) == 2


async def test_a_prompt_is_converted_once(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[Delta] = []

    def recording(body: GenerationBody, first: Delta) -> dict[str, Any]:
        converted.append(first)
        return of_prompt(body, first)

    monkeypatch.setattr("frontend.endpoints.completions.of_prompt", recording)
    await whole(served, COMPLETIONS, prompt=["a", "b"], n=3, prompt_logprobs=1)
    assert len(converted) == 2


async def test_a_chat_has_the_values_of_its_prompt_once(served: Serving) -> None:
    await whole(served, CHAT, prompt_logprobs=1, n=3)
    assert not any("prompt_logprobs_choices" in call.parameters for call in served.triton.calls)


async def test_beside_echo(served: Serving) -> None:
    """Each has its own number of alternatives, and `logprobs` begin with the prompt only if it is repeated."""
    body = await whole(served, COMPLETIONS, echo=True, logprobs=2, prompt_logprobs=0)
    choice = body["choices"][0]
    assert served.triton.calls[0].parameters["prompt_logprobs"] == 2
    assert choice["prompt_logprobs"][1].keys() == {"2"}
    assert choice["logprobs"]["tokens"] == ["t1", "t2"]
    body = await whole(served, COMPLETIONS, logprobs=1, prompt_logprobs=2)
    assert body["choices"][0]["logprobs"]["tokens"] == []


async def test_nothing_is_generated(served: Serving) -> None:
    body = await whole(served, COMPLETIONS, echo=True, max_tokens=0, return_token_ids=True)
    assert body["choices"][0]["token_ids"] == []


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"prompt_logprobs": 21}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": -1}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        (COMPLETIONS, {"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
        *(
            (CHAT, {name: value, "messages": [{"role": "user", "content": [PICTURE]}]}, name)
            for name, value in (("prompt_logprobs", 0), ("return_token_ids", True))
        ),
        *((CHAT, {"truncate_prompt_tokens": value}, "truncate_prompt_tokens") for value in (0, -2, 2**31, True)),
        (CHAT, {"truncation_side": "middle"}, "truncation_side"),
        (COMPLETIONS, {"truncate_prompt_tokens": 1, "echo": True}, "echo"),
        (CHAT, {"documents": [{}] * 1025}, "documents"),
    ],
)
async def test_refused(served: Serving, path: str, fields: dict[str, Any], param: str) -> None:
    response = await served.http.post(path, json=BODIES[path] | fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text
    assert not served.triton.calls
