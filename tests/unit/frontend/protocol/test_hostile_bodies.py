# SPDX-License-Identifier: Apache-2.0
"""Hostile bodies, by hand and by hypothesis: each gets an answer or a 400 with the reason, never a 500."""

import asyncio
import base64
import json
import logging
import string
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.sampling import SAMPLING
from tests.fakes.frontend_server import CHAT, HELLO, Serving, serving
from tests.support.hostile_bodies import DEEP, HOSTILE, MESSAGES

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 2_000_000
QUICK = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Serving]:
    async with serving(max_body_bytes=LIMIT, image_dirs=("/usr/share/doc",)) as one:
        yield one


def check(response: httpx.Response, *statuses: int) -> None:
    assert response.status_code in (statuses or (200, 400, 404, 413)), response.text[:500]
    if response.status_code != 200:
        error = response.json()["error"]
        of_messages = response.request.url.path.startswith(MESSAGES)
        assert error.keys() == ({"message", "type"} if of_messages else {"message", "type", "param", "code"})
        assert 0 < len(error["message"]) <= 500


@pytest.mark.parametrize("hostile", HOSTILE, ids=[one.name for one in HOSTILE])
async def test_no_body_is_a_server_error(served: Serving, hostile: Any) -> None:
    response = await served.http.post(hostile.path, content=hostile.body())
    check(response)
    assert (await served.chat()).status_code == 200


EXTREMES = (
    *("0", "-0.0", "1", "-1", "2", "100", "0.5", "1e-5", "1e-45", "1e-50", "1e-320", "1.00000000001", "1e38", "1e39"),
    *("2147483647", "2147483648", "-2147483649", "18446744073709551615", "18446744073709551616"),
    *("true", '"1"', "[]", "{}", "null"),
)
# A body with one of these cannot be read at all, so that no field is named.
NO_JSON = ("1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("name", [*SAMPLING, "max_tokens", "n", "priority"])
async def test_extreme_values_are_answered_or_named(served: Serving, path: str, name: str) -> None:
    prompt = '"messages": [{"role": "user", "content": "Hello"}]' if path == CHAT else '"prompt": "Hello"'
    for value in EXTREMES + NO_JSON:
        response = await served.http.post(path, content=f'{{{prompt}, "{name}": {value}}}'.encode())
        check(response, 200, 400)
        if response.status_code == 400 and value not in NO_JSON:
            assert response.json()["error"]["param"] == name, (value, response.text)


@pytest.mark.parametrize("name", ["metadata", "instructions", "tools", "text"])
async def test_a_response_cannot_repeat_deeply_nested_fields(served: Serving, name: str) -> None:
    for value in (DEEP(300), [DEEP(300)], {"format": {"type": "text", "x": DEEP(300)}}):
        for stream in (False, True):
            body = {"input": "x", "stream": stream, name: value}
            check(await served.http.post("/v1/responses", content=json.dumps(body).encode()), 400)


async def test_a_deeply_nested_guide_of_a_plain_completion(served: Serving) -> None:
    for fields in ({"guided_json": DEEP(300)}, {"structured_outputs": {"json": DEEP(300)}}):
        check(await served.http.post("/v1/completions", content=json.dumps({"prompt": "x"} | fields).encode()), 400)


@pytest.mark.parametrize("length", [True, False], ids=["with a length", "chunked"])
async def test_a_body_beyond_the_limit(served: Serving, length: bool) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10 * LIMIT // 100_000):
            sent += 100_000
            yield b" " * 100_000

    content = b" " * (10 * LIMIT) if length else pieces()
    try:
        check(await served.http.post(CHAT, content=content), 413)
    except httpx.WriteError:  # The server may close while the body is still being sent.
        assert not length or sent == 0
    assert (await served.chat()).status_code == 200


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 50).decode()


@pytest.mark.parametrize(
    "url",
    [
        "file:///usr/share/doc/../../../etc/passwd",
        "file:///usr/share/doc/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "file://localhost/etc/passwd",
        "file://evil.example/usr/share/doc/x.png",
        "file:///etc/passwd%00.png",
        "file:///proc/self/environ",
        "file:///dev/zero",
        "file:///usr/share/doc",
        "file:usr/share/doc/x",
        "FILE:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1:1/%0d%0aX: y",
        "http://127.0.0.1:1/\r\nHost: y",
        "http://[::1]:1/",
        "http://0/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:7f00:1]/",
        "http://[fe80::1%25eth0]/",
        "http://user:pass@127.0.0.1/",
        "http://127.0.0.1:99999999/",
        "http://127.0.0.1:0/",
        "http://" + "a" * 300 + ".example/",
        "http://" + "a." * 200 + "/",
        "http://\u2460.example\u2488/",
        "http://xn--/",
        "http://[",
        "http://[::1",
        "gopher://127.0.0.1/",
        "javascript:alert(1)",
        "data:",
        "data:,",
        "data:;base64",
        "data:;base64,",
        "data:image/png;base64,====",
        "data:image/png;base64," + "A" * 1001,
        "data:image/png;base64,\u0000",
        "data:image/png;base64,\u00e9",
        "",
        " ",
        "\u0000",
        "x" * 100_000,
    ],
)
async def test_urls_that_lead_elsewhere(served: Serving, url: str) -> None:
    calls = len(served.triton.calls)
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"messages": [{"role": "user", "content": content}]}
    response = await served.http.post(CHAT, json=body)
    check(response, 200, 400)
    sent = [data for call in served.triton.calls[calls:] for data in call.inputs.get("images", [])]
    assert not any(b"root:" in data for data in sent)
    if not url.startswith("data:"):
        assert response.status_code == 400, url


async def test_client_data_is_not_logged(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    secret = "SECRET\r\n2026-01-01 CRITICAL forged\x1b[2J"
    with caplog.at_level(logging.DEBUG, logger="frontend"):
        await served.chat(messages=[{"role": "user", "content": secret}])
        await served.chat(messages=[{"role": secret, "content": secret}])
        await served.chat(model=secret)
        await served.http.post(CHAT, json=HELLO, headers={"User-Agent": "SECRET"})
        await served.http.get("/v1/models/SECRET%0aforged")
    assert "SECRET" not in caplog.text and "forged" not in caplog.text


async def test_many_hostile_bodies_at_once_and_good_ones_between(served: Serving) -> None:
    served.reset()
    hostile = [served.http.post(one.path, content=one.body()) for one in HOSTILE]
    answers = await asyncio.gather(*(request for bad in hostile for request in (bad, served.chat())))
    for bad, good in zip(answers[::2], answers[1::2], strict=True):
        check(bad)
        assert good.status_code == 200


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = words(
    "role content type text image_url video_url url detail tool_calls function name arguments id tool_call_id refusal "
    "thinking signature tool_use_id input source media_type data title context is_error citations cache_control "
    "reasoning_content function_call input_audio min_pixels max_pixels num_frames fps max_dynamic_patch"
)
WORDS = words(
    "system developer user assistant tool function text image_url video_url input_audio auto low "
    "image document search_result tool_use tool_result tool_reference thinking redacted_thinking base64 image/png content"
)
MESSAGE_LIKE = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=15,
)
FIELDS = words(
    "model messages temperature top_p top_k min_p n stop seed logit_bias presence_penalty frequency_penalty "
    "repetition_penalty min_tokens ignore_eos bad_words stop_token_ids skip_special_tokens priority stream stream_options "
    "response_format structured_outputs guided_json guided_regex guided_choice guided_grammar max_tokens logprobs "
    "top_logprobs tools tool_choice parallel_tool_calls separate_reasoning echo chat_template_kwargs enable_thinking "
    "reasoning_effort thinking thinking_token_budget prompt input instructions tokens text reasoning metadata best_of functions suffix audio include "
    "system stop_sequences output_config context_management max_output_tokens verbosity mm_processor_kwargs media_io_kwargs"
)
PATHS = (CHAT, "/v1/completions", "/v1/responses", MESSAGES, f"{MESSAGES}/count_tokens", "/tokenize", "/detokenize")


async def post(served: Serving, path: str, body: Any) -> None:
    # json.dumps writes NaN, Infinity and lone surrogates, as some clients do.
    check(await served.http.post(path, content=json.dumps(body).encode()), 200, 400, 404)


async def test_any_messages(served: Serving) -> None:
    loop = asyncio.get_running_loop()

    @QUICK
    @given(messages=MESSAGE_LIKE | st.lists(st.dictionaries(NAMES, MESSAGE_LIKE, max_size=5), max_size=4))
    @example(messages=[{"role": "user", "content": "\ud800"}])
    @example(messages=[{"role": [], "content": {}}])
    @example(messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": float("nan")}}]}])
    def run(messages: Any) -> None:
        for path in (CHAT, "/tokenize"):
            asyncio.run_coroutine_threadsafe(post(served, path, {"messages": messages}), loop).result()
        asyncio.run_coroutine_threadsafe(post(served, "/v1/responses", {"input": messages}), loop).result()
        asyncio.run_coroutine_threadsafe(post(served, MESSAGES, {"messages": messages, "max_tokens": 4}), loop).result()

    await asyncio.to_thread(run)


async def test_any_blocks(served: Serving) -> None:
    """Blocks of messages that are right in most places, so that their insides are read."""
    loop = asyncio.get_running_loop()
    kinds = words(
        "text image document search_result tool_use tool_result tool_reference thinking redacted_thinking other"
    )
    inner = SCALARS | st.dictionaries(NAMES, SCALARS | WORDS, max_size=4)
    block = st.builds(lambda kind, fields: fields | {"type": kind}, kinds, st.dictionaries(NAMES, inner, max_size=5))
    content = st.text(max_size=9) | st.lists(block, max_size=4)
    nested = st.lists(
        block | st.builds(lambda one: {"type": "tool_result", "tool_use_id": "x", "content": one}, content), max_size=4
    )
    message = st.builds(lambda role, one: {"role": role, "content": one}, words("user assistant system"), nested)

    @QUICK
    @given(messages=st.lists(message, min_size=1, max_size=4), system=content)
    def run(messages: Any, system: Any) -> None:
        body = {"messages": messages, "system": system, "max_tokens": 4}
        for path in (MESSAGES, f"{MESSAGES}/count_tokens"):
            asyncio.run_coroutine_threadsafe(post(served, path, body), loop).result()

    await asyncio.to_thread(run)


async def test_any_fields(served: Serving) -> None:
    loop = asyncio.get_running_loop()

    @QUICK
    @given(path=st.sampled_from(PATHS), fields=st.dictionaries(FIELDS, JSON | MESSAGE_LIKE, min_size=1, max_size=4))
    def run(path: str, fields: dict[str, Any]) -> None:
        sound = {CHAT: HELLO, "/v1/completions": {"prompt": "x"}, "/v1/responses": {"input": "x"}}.get(path, {})
        if path.startswith(MESSAGES):
            sound = HELLO | {"max_tokens": 4}
        asyncio.run_coroutine_threadsafe(post(served, path, sound | fields), loop).result()

    await asyncio.to_thread(run)


async def test_any_tools_and_constraints(served: Serving) -> None:
    loop = asyncio.get_running_loop()
    names = st.sampled_from(
        ["type", "function", "name", "parameters", "strict", "description", "json_schema", "schema"]
    )
    values = st.recursive(
        SCALARS | st.sampled_from(["function", "json_schema", "json_object", "object", "required"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )
    fields = st.sampled_from(["tools", "tool_choice", "response_format", "structured_outputs", "guided_json"])

    @QUICK
    @given(fields=st.dictionaries(fields, values, min_size=1, max_size=3))
    def run(fields: dict[str, Any]) -> None:
        asyncio.run_coroutine_threadsafe(post(served, CHAT, HELLO | fields), loop).result()

    await asyncio.to_thread(run)


async def test_any_bytes(served: Serving) -> None:
    loop = asyncio.get_running_loop()

    @QUICK
    @given(body=st.binary(max_size=200) | st.text(alphabet=string.printable, max_size=200).map(str.encode))
    def run(body: bytes) -> None:
        for path in PATHS:
            request = served.http.post(path, content=body)
            check(asyncio.run_coroutine_threadsafe(request, loop).result(), 400)

    await asyncio.to_thread(run)
