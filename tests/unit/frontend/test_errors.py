# SPDX-License-Identifier: Apache-2.0
"""Requests that the API refuses, and its errors when Triton fails before or during an answer."""

from collections.abc import AsyncIterator, Callable, Sequence

import httpx
import openai
import pytest

from tests.fakes.fake_triton import REFUSAL, Call, failure, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, Serving, serving
from tests.support.hostile_bodies import DEEP

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS = "/v1/completions"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
SECRET = "do-not-repeat-me"


SETTINGS = {"max_body_bytes": 100_000, "api_key": ()}


def part(**fields: object) -> dict:
    return {"messages": [{"role": "user", "content": [fields]}]}


REFUSED_CHATS = [
    # (fields, param, words of the message)
    ({"messages": None}, "messages", ""),
    ({"messages": []}, "messages", ""),
    ({"messages": "Hi"}, "messages", ""),
    ({"messages": [1]}, "messages[0]", ""),
    ({"messages": [{"role": "alien", "content": SECRET}]}, "messages[0].role", "system"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", ""),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", ""),
    ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0].function_call", "tool_calls"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls", "function"),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name", "string"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 5}]}, "messages[0].tool_call_id", "string"),
    (part(type="input_audio", input_audio={}), "messages[0].content[0].type", "audio is not supported"),
    (part(type="audio_url", audio_url={"url": "a"}), "messages[0].content[0].type", "audio is not supported"),
    (part(type="file", file={}), "messages[0].content[0].type", "image_url, text, video_url"),
    ({"mm_processor_kwargs": {"device": "cuda"}}, "mm_processor_kwargs", "unknown option 'device'"),
    ({"media_io_kwargs": {"audio": {}}}, "media_io_kwargs", "takes no audio"),
    ({"media_io_kwargs": {"video": {"num_frames": 0}}}, "media_io_kwargs", "video.num_frames must be from 1"),
    (part(type="image_url", image_url={}), "messages[0].content[0].image_url.url", ""),
    (part(type="image_url", image_url={"url": "data:image/png;base64,%%%"}), "messages", "base64"),
    (part(type="image_url", image_url={"url": "file:///etc/passwd"}), "messages", "allows"),
    (part(type="image_url", image_url={"url": "http://127.0.0.1:1/x.png"}), "messages", "not allowed"),
    (part(type="image_url", image_url={"url": "http://[::ffff:127.0.0.1]/x.png"}), "messages", "not allowed"),
    (part(type="image_url", image_url={"url": "ftp://example.org/x.png"}), "messages", "begin with"),
    ({"max_tokens": 0}, "max_tokens", "1"),
    ({"max_tokens": "5"}, "max_tokens", "integer"),
    ({"max_tokens": True}, "max_tokens", "integer"),
    ({"max_tokens": 2**31}, "max_tokens", ""),
    ({"max_completion_tokens": -1}, "max_completion_tokens", ""),
    ({"temperature": -0.1}, "temperature", ""),
    ({"temperature": 2.1}, "temperature", "2"),
    ({"temperature": SECRET}, "temperature", "number"),
    ({"top_p": 1.1}, "top_p", ""),
    ({"top_k": -2}, "top_k", ""),
    ({"min_p": 2}, "min_p", ""),
    ({"n": 0}, "n", ""),
    ({"n": 129}, "n", ""),
    ({"stop": ["a"] * 1025}, "stop", "1024"),
    ({"stop": ["a" * 4096] * 17}, "stop", "65536"),
    ({"stop": [1]}, "stop[0]", ""),
    ({"seed": 0.5}, "seed", ""),
    ({"logit_bias": {"x": 1}}, "logit_bias", "ids"),
    ({"logit_bias": {"00000000000999999999999": 1}}, "logit_bias", "ids"),
    ({"logit_bias": {"0" * 5000 + "1": 1}}, "logit_bias", "ids"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "100"),
    ({"logprobs": 3}, "logprobs", ""),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    ({"presence_penalty": 3}, "presence_penalty", ""),
    ({"frequency_penalty": -3}, "frequency_penalty", ""),
    ({"repetition_penalty": 0}, "repetition_penalty", ""),
    ({"repetition_penalty": 0.001}, "repetition_penalty", "0.01"),
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "min_tokens"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]", ""),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream_options"),
    ({"reasoning_effort": "colossal"}, "reasoning_effort", ""),
    ({"tools": [{"type": "retrieval"}]}, "tools[0].type", "function"),
    ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "tools[0].function.name", "64"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
    ({"tool_choice": "required"}, "tool_choice", "tools"),
    ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "auto"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "among tools"),
    (
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
            },
        },
        "tool_choice",
        "among tools",
    ),
    ({"tools": [TOOL], "tool_choice": "required", "guided_regex": "a"}, "tool_choice", "excludes"),
    ({"response_format": {"type": "yaml"}}, "response_format", "json_object"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exactly one"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "response_format", "only one"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message", "exclude"),
    ({"functions": [{"name": "f"}]}, "functions", "tools"),
    ({"function_call": "auto"}, "function_call", "tool_choice"),
    ({"best_of": 2}, "best_of", "n"),
    ({"use_beam_search": True}, "use_beam_search", ""),
    ({"length_penalty": 0.5}, "length_penalty", ""),
    ({"logits_processors": ["x"]}, "logits_processors", ""),
    ({"modalities": ["text", "audio"]}, "modalities", ""),
    ({"audio": {"voice": "a"}}, "audio", ""),
    ({"verbosity": "loud"}, "verbosity", ""),
    ({"web_search_options": {}}, "web_search_options", ""),
    ({"chat_template": "{{ x }}"}, "chat_template", ""),
    ({"logprob_token_ids": [1]}, "logprob_token_ids", "other requests"),
]

REFUSED_COMPLETIONS = [
    ({}, "prompt", ""),
    ({"prompt": ""}, "prompt", "empty"),
    ({"prompt": []}, "prompt", "empty"),
    ({"prompt": [[]]}, "prompt", "empty"),
    ({"prompt": [1, "a"]}, "prompt", ""),
    ({"prompt": [-1]}, "prompt", "ids"),
    ({"prompt": ["x"] * 129}, "n", "128"),
    ({"prompt": "x", "max_tokens": 0}, "max_tokens", "echo"),
    ({"prompt": "x", "logprobs": 21}, "logprobs", "20"),
    ({"prompt": "x", "echo": True, "logprobs": 1, "stream": True}, "echo", "stream"),
    ({"prompt": "x", "suffix": "y"}, "suffix", ""),
    ({"prompt": "x", "best_of": 2}, "best_of", ""),
    ({"prompt": "x", "min_tokens": 17}, "min_tokens", "min_tokens"),
]


def check_error(response: httpx.Response, status: int = 400) -> dict:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] is None or isinstance(error["code"], str)
    assert 0 < len(error["message"]) <= 500
    assert SECRET not in response.text
    return error


@pytest.mark.parametrize(("fields", "param", "words"), REFUSED_CHATS)
async def test_refused_chats(served: Serving, fields: dict, param: str, words: str) -> None:
    error = check_error(await served.chat(**fields))
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "") == param
    assert words in error["message"]
    assert not served.triton.calls


@pytest.mark.parametrize(("fields", "param", "words"), REFUSED_COMPLETIONS)
async def test_refused_completions(served: Serving, fields: dict, param: str, words: str) -> None:
    error = check_error(await served.http.post(COMPLETIONS, json=fields))
    assert (error["param"] or "") == param
    assert words in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": '
        + b'{"a":' * 400
        + b"1"
        + b"}" * 401
        + b"}",
        b"[" * 50_000,
    ],
)
async def test_bodies_that_cannot_be_read(served: Serving, body: bytes) -> None:
    check_error(await served.http.post(CHAT, content=body))


@pytest.mark.parametrize(
    ("missing", "fields", "param"),
    [
        ("logit_bias_ids", {"logit_bias": {"1": 1}}, "logit_bias"),
        ("end_id", {"ignore_eos": True}, "ignore_eos"),
        ("seed", {"seed": 1}, "seed"),
        ("guided_decoding_guide", {"response_format": {"type": "json_object"}}, "response_format"),
        ("guided_decoding_guide", {"guided_regex": "a"}, "guided_regex"),
        ("images", part(type="image_url", image_url={"url": "data:;base64,eA=="}), "messages"),
    ],
)
async def test_an_undeclared_input_refuses_its_parameter(missing: str, fields: dict, param: str) -> None:
    async with serving() as served:
        served.triton.inputs.discard(missing)
        assert check_error(await served.chat(**fields))["param"] == param
        assert (await served.chat()).status_code == 200


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"min_p": 0.1}, "min_p"),
        (CHAT, {"priority": 1}, "priority"),
        (CHAT, {"allowed_token_ids": [1]}, "allowed_token_ids"),
        (COMPLETIONS, {"prompt": "x", "cache_salt": "x"}, "cache_salt"),
        (CHAT, {"logprobs": True, "top_logprobs": 1}, "top_logprobs"),
        (COMPLETIONS, {"prompt": "x", "echo": True, "logprobs": 0}, "echo"),
        (COMPLETIONS, {"prompt": "x", "prompt_logprobs": 0}, "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "x", "return_token_ids": True}, "return_token_ids"),
    ],
)
async def test_parameters_that_only_python_engines_read(path: str, fields: dict, param: str) -> None:
    async with serving() as served:
        served.triton.engine_backend = "tensorrtllm"
        response = await served.http.post(path, json=(HELLO if path == CHAT else {}) | fields)
        assert check_error(response)["param"] == param


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"model": "other"}, "model"),
        (CHAT, {"temperature": -1}, "temperature"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"best_of": 2}, "best_of"),
        (CHAT, {"ignore_eos": True}, "ignore_eos"),
        (CHAT, {"min_p": 0.1}, "min_p"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"chat_template_kwargs": DEEP(300)}, "chat_template_kwargs"),
        (CHAT, {"guided_json": DEEP(300)}, "guided_json"),
        ("/v1/responses", {"text": {"format": {"type": "json_object"}}}, "text.format"),
        ("/v1/responses", {"metadata": DEEP(300)}, "metadata"),
        ("/v1/responses", {"tools": [{"type": "function", "name": "f", "more": DEEP(300)}]}, "tools"),
    ],
)
async def test_a_request_that_is_refused_for_another_reason_fetches_no_image(
    path: str, fields: dict, param: str | None
) -> None:
    url = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
    text = {"messages": [{"role": "user", "content": [url]}]}
    if path != CHAT:
        part = {"type": "input_image", "image_url": "http://127.0.0.1:1/x.png"}
        text = {"input": [{"role": "user", "content": [part]}]}
    async with serving() as served:
        fetched: list[str] = []

        async def fetch(urls: Sequence[str], take: Callable[[int], None]) -> tuple[bytes, ...]:
            fetched.extend(urls)
            return (b"x",) * len(urls)

        served.server.app.state.service.images.fetch = fetch
        served.triton.inputs -= {"end_id", "guided_decoding_guide"}
        served.triton.engine_backend = "tensorrtllm"
        refused = await served.http.post(path, json=text | fields)
        assert check_error(refused, 404 if "model" in fields else 400)["param"] == param
        assert not fetched and not served.triton.calls
        assert (await served.http.post(path, json=text)).status_code == 200
        assert fetched == ["http://127.0.0.1:1/x.png"]


async def test_no_image_is_fetched_for_a_model_without_vision() -> None:
    async with serving() as served:
        served.triton.inputs.discard("images")
        refused = await served.chat(**part(type="image_url", image_url={"url": "http://127.0.0.1:1/x.png"}))
        error = check_error(refused)
        assert (error["param"], "not supported" in error["message"]) == ("messages", True)


async def test_unknown_model_and_path_and_method(served: Serving) -> None:
    error = check_error(await served.chat(model="other"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await served.openai.chat.completions.create(model="other", **HELLO)
    check_error(await served.http.get("/v1/nothing"), 404)
    check_error(await served.http.get(CHAT), 405)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("in ensemble 'ensemble', " + REFUSAL, 400, "context_length_exceeded"),
        ("Request for unknown model: 'ensemble' is not found", 503, "unavailable"),
        ("in ensemble 'ensemble', Exceeds maximum queue size", 503, "unavailable"),
        (f"CUDA error {SECRET}", 500, "internal_error"),
    ],
)
async def test_an_error_before_the_first_event_keeps_its_status(
    served: Serving, text: str, status: int, code: str, stream: bool
) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield failure(text)

    served.triton.script = script
    response = await served.chat(stream=stream)
    assert check_error(response, status)["code"] == code
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_the_middle(served: Serving, stream: bool) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply("partly")
        yield failure(SECRET)

    served.triton.script = script
    if not stream:
        check_error(await served.chat(), 500)
        return
    chunks = await served.chunks()
    assert chunks[-1]["error"]["code"] == "internal_error"
    assert SECRET not in str(chunks)
    with pytest.raises(openai.APIError):
        async for _ in await served.openai.chat.completions.create(model="model", stream=True, **HELLO):
            pass


async def test_one_failed_choice_stops_the_others(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        if call.id.endswith("-0"):
            yield failure("broken")
            return
        await call.stopped.wait()
        yield finish("cancelled")

    served.triton.script = script
    check_error(await served.chat(n=2), 500)
    await served.stopped([1])
    assert served.triton.calls[0].id not in served.triton.stops


async def test_an_answer_without_an_end_is_an_error(served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply("cut", final=True)

    served.triton.script = script
    check_error(await served.chat(), 500)


async def test_body_limit(served: Serving) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    assert check_error(await served.chat(user="x" * 100_000), 413)["code"] == "request_too_large"
    # Without a Content-Length.
    check_error(await served.http.post(CHAT, content=parts()), 413)
    assert (await served.chat()).status_code == 200


async def test_a_large_prompt_with_many_choices(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.serving.served_model.MAX_SENT", 10_000)
    message = {"role": "user", "content": "x" * 4000}
    assert (await served.chat(messages=[message], n=2)).status_code == 200
    assert check_error(await served.chat(messages=[message], n=3))["param"] == "n"


async def test_api_keys() -> None:
    async with serving(api_key=("one", "two")) as served:
        assert check_error(await served.chat(), 401)["code"] == "invalid_api_key"
        wrong = {"Authorization": "Bearer three"}
        check_error(await served.http.post(CHAT, json=HELLO, headers=wrong), 401)
        check_error(await served.http.post(f"{served.url}//v1/models", headers=wrong), 401)
        right = {"Authorization": "Bearer two"}
        assert (await served.http.post(CHAT, json=HELLO, headers=right)).status_code == 200
        assert (await served.http.get("/health/live")).status_code == 200


async def test_cors_is_off_unless_asked_for() -> None:
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    async with serving() as served:
        assert "access-control-allow-origin" not in (await served.http.options(CHAT, headers=ask)).headers
    async with serving(cors_allow_origins=("https://app.example",)) as served:
        allowed = (await served.http.options(CHAT, headers=ask)).headers["access-control-allow-origin"]
        assert allowed == "https://app.example"
