# SPDX-License-Identifier: Apache-2.0
"""Plain completions, tokenizing, and the small endpoints."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.fake_triton import REFUSAL, Call, answer_of, failure, finish, reply
from tests.fakes.frontend_server import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/completions"


def entry(token: str, logprob: float | None, **top: float) -> dict:
    alternatives = [{"token": other, "logprob": value, "bytes": None} for other, value in top.items()]
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": alternatives}


SETTINGS = {"max_model_len": 4096}


async def complete(served: Serving, **fields: object) -> dict:
    response = await served.http.post(PATH, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_text_prompt(served: Serving) -> None:
    body = await complete(served, prompt="Once")
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "Hello world", "logprobs": None, "finish_reason": "stop"}]
    call = served.triton.calls[0]
    assert (call.inputs["text_input"], call.inputs["max_tokens"]) == ([b"Once"], [16])
    assert "chat" not in call.parameters


@pytest.mark.parametrize(
    ("prompt", "inputs"),
    [
        ([1, 2, 3], [{"input_ids": [1, 2, 3]}]),
        (["a", "b"], [{"text_input": [b"a"]}, {"text_input": [b"b"]}]),
        ([[1], [2, 3]], [{"input_ids": [1]}, {"input_ids": [2, 3]}]),
    ],
)
async def test_prompts_as_ids_and_several_prompts(served: Serving, prompt: list, inputs: list) -> None:
    body = await complete(served, prompt=prompt)
    assert [choice["index"] for choice in body["choices"]] == list(range(len(inputs)))
    for call, wanted in zip(served.triton.calls, inputs, strict=True):
        assert {name: call.inputs.get(name) for name in wanted} == wanted
    assert body["usage"]["prompt_tokens"] == 5 * len(inputs)


async def test_choices_are_numbered_by_prompt_first(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield finish(text=call.inputs["text_input"][0].decode() + str(call.inputs["seed"][0]))

    served.triton.script = script
    body = await complete(served, prompt=["a", "b"], n=2, seed=5)
    assert [choice["text"] for choice in body["choices"]] == ["a5", "a6", "b5", "b6"]
    assert body["usage"]["prompt_tokens"] == 10


@pytest.mark.parametrize("prompt", ["Once ", [ord(one) for one in "Once "]])
async def test_echo(served: Serving, prompt: object) -> None:
    assert (await complete(served, prompt=prompt, echo=True))["choices"][0]["text"] == "Once Hello world"
    chunks = await served.chunks(PATH, prompt=prompt, echo=True)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Once Hello world"


async def test_echo_without_tokens_generates_nothing(served: Serving) -> None:
    body = await complete(served, prompt="Once", echo=True, max_tokens=0)
    assert body["choices"][0]["text"] == "Once"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 0


async def test_completion_logprobs_with_echo(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply(" c", logprobs=[entry(" c", -0.3, d=-2.0)])
        yield finish(prompt_logprobs=[entry("a", None), entry(" b", -1.0, x=-0.5)])

    served.triton.script = script
    body = await complete(served, prompt="a b", echo=True, logprobs=1)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["a", " b", " c"],
        "token_logprobs": [None, -1.0, -0.3],
        "top_logprobs": [None, {"x": -0.5, " b": -1.0}, {"d": -2.0, " c": -0.3}],
        "text_offset": [0, 1, 3],
    }
    assert served.triton.calls[0].parameters["prompt_logprobs"] == 1


async def test_text_offsets_continue_from_chunk_to_chunk(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        for token in ("ab", "c", "d"):
            yield reply(token, logprobs=[entry(token, -1.0)])
        yield finish()

    served.triton.script = script
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in await served.chunks(PATH, prompt="x", logprobs=0)]
    assert [offset for one in logprobs if one for offset in one["text_offset"]] == [0, 2, 3]


@pytest.mark.parametrize("stream", [False, True])
async def test_text_offsets_count_characters(served: Serving, stream: bool) -> None:
    """Also of characters that are several tokens, which may arrive apart."""
    parts = [b"a", *(bytes([byte]) for byte in "🤔".encode()), "中".encode()[:2], "中".encode()[2:] + b"!", b"z"]
    entries = [entry(part.decode(errors="backslashreplace"), -1.0) | {"bytes": list(part)} for part in parts]

    async def script(call: Call) -> AsyncIterator:
        yield reply("a", logprobs=entries[:3])
        yield reply("🤔中!z", logprobs=entries[3:])
        yield finish()

    served.triton.script = script
    fields = {"prompt": "x", "logprobs": 0}
    bodies = await served.chunks(PATH, **fields) if stream else [await complete(served, **fields)]
    logprobs = [body["choices"][0]["logprobs"] for body in bodies]
    offsets = [offset for one in logprobs if one for offset in one["text_offset"]]
    assert offsets == [0, 1, 1, 1, 1, 2, 2, 4]


@pytest.mark.parametrize(
    ("fields", "guide"),
    [
        ({"response_format": {"type": "json_object"}}, ("json", None)),
        ({"guided_json": {"type": "object"}}, ("json_schema", '{"type":"object"}')),
        ({"guided_regex": "a+"}, ("regex", "a+")),
        ({"guided_choice": ["a", 'say "b"']}, ("ebnf_grammar", 'root ::= "a" | "say \\"b\\""')),
        ({"structured_outputs": {"grammar": 'root ::= "x"'}}, ("ebnf_grammar", 'root ::= "x"')),
    ],
)
async def test_constraints_become_guides(served: Serving, fields: dict, guide: tuple) -> None:
    await complete(served, prompt="x", **fields)
    inputs = served.triton.calls[0].inputs
    names = ("guided_decoding_guide_type", "guided_decoding_guide")
    assert tuple(inputs[name][0].decode() if name in inputs else None for name in names) == guide


async def test_openai_client_streams_completions(served: Serving) -> None:
    stream = await served.openai.completions.create(model="model", prompt="x", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello world"


async def test_tokenize_and_detokenize(served: Serving) -> None:
    response = await served.http.post("/tokenize", json={"prompt": "ab"})
    assert response.json() == {"count": 3, "max_model_len": 4096, "tokens": [2, 97, 98]}
    await served.http.post("/tokenize", json={"prompt": "ab", "add_special_tokens": False})
    assert served.triton.calls[-1].parameters["add_special_tokens"] is False
    response = await served.http.post("/detokenize", json={"tokens": [97, 98, 99]})
    assert response.json() == {"prompt": "abc"}
    assert served.triton.calls[-1].shapes["output_ids"] == [1, 1, 3]
    assert (await served.http.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}


@pytest.mark.parametrize("body", [{"prompt": "a世"}, {"messages": [{"role": "user", "content": "a世"}]}])
async def test_tokenize_with_the_texts_of_the_tokens(served: Serving, body: dict) -> None:
    answer = (await served.http.post("/tokenize", json=body | {"return_token_strs": True})).json()
    assert len(answer["token_strs"]) == answer["count"] == len(answer["tokens"])
    assert answer["token_strs"][0] == "<bos>" and {"a", "世"} <= set(answer["token_strs"])
    assert "token_strs" not in (await served.http.post("/tokenize", json=body | {"return_token_strs": False})).json()
    wrong = await served.http.post("/tokenize", json=body | {"return_token_strs": "yes"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "return_token_strs")


async def test_tokenize_a_chat(served: Serving) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    response = await served.http.post("/tokenize", json={"messages": messages, "enable_thinking": False})
    assert response.status_code == 200
    sent = served.triton.calls[0].messages
    assert sent == {"messages": messages, "enable_thinking": False}


async def test_tokenize_a_chat_with_an_image(served: Serving) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGl4ZWxz", "detail": "low"}},
    ]
    chat = {"messages": [{"role": "user", "content": parts}]}
    for path in ("/tokenize", "/v1/chat/completions"):
        assert (await served.http.post(path, json=chat)).status_code == 200
    tokenized, answered = served.triton.calls
    assert tokenized.inputs == {name: answered.inputs[name] for name in ("messages", "images")}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"documents": "x"}, "documents"),
    ],
)
async def test_tokenize_refuses_what_a_chat_refuses(served: Serving, fields: dict, param: str) -> None:
    for path in ("/tokenize", "/v1/chat/completions"):
        response = await served.http.post(path, json={"messages": [{"role": "user", "content": "Hi"}]} | fields)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_errors_of_unary_calls_keep_their_kind(served: Serving) -> None:
    response = await served.http.post("/tokenize", json={"prompt": "<<refuse>>"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_models(served: Serving) -> None:
    listed = await served.openai.models.list()
    assert [model.id for model in listed.data] == ["model", "org/model:1"]
    one = await served.http.get("/v1/models/org/model:1")
    assert (one.json()["id"], one.json()["max_model_len"]) == ("org/model:1", 4096)
    missing = await served.http.get("/v1/models/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_readiness_names_models_that_are_not_ready(served: Serving) -> None:
    assert (await served.http.get("/health/live")).status_code == 200
    assert (await served.http.get("/health/ready")).json()["status"] == "ready"
    served.triton.unready.add("vit")
    response = await served.http.get("/health/ready")
    assert (response.status_code, response.json()["not_ready"]) == (503, ["vit"])
    assert response.json()["parts"]["tensorrt_llm"] is True


async def test_metrics_count_by_outcome(served: Serving) -> None:
    async def count(outcome: str) -> float:
        text = (await served.http.get("/metrics")).text
        name = f'triton_chat_requests_total{{endpoint="completions",model="model",outcome="{outcome}"}} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    before = await count("ok"), await count("context_length_exceeded")
    await complete(served, prompt="x")

    async def script(call: Call) -> AsyncIterator:
        yield failure("in ensemble: " + REFUSAL)

    served.triton.script = script
    await served.http.post(PATH, json={"prompt": "x"})
    assert (await count("ok"), await count("context_length_exceeded")) == (before[0] + 1, before[1] + 1)
    assert 'triton_chat_in_flight{model="model"} 0.0' in (await served.http.get("/metrics")).text


async def test_the_request_id(served: Serving) -> None:
    response = await served.http.get("/version", headers={"X-Request-Id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    response = await served.http.get("/version", headers={"X-Request-Id": "a b<script>"})
    assert len(response.headers["x-request-id"]) == 32


async def test_length_is_never_overwritten(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield finish("length", text="cut")

    served.triton.script = script
    assert (await complete(served, prompt="x"))["choices"][0]["finish_reason"] == "length"
    served.triton.script = answer_of("x")
