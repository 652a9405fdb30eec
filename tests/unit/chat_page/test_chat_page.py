# SPDX-License-Identifier: Apache-2.0
"""The chat page without a browser: conversations, requests, error messages and settings."""

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chat_page.conversation import STOPPED, Conversation, Conversations
from chat_page.display import render
from chat_page.endpoint import Endpoint
from chat_page.request import Controls, request_fields
from chat_page.settings import PageSettings, parse_settings
from chat_page.turns import Call, PageError, Turn, message, open_calls, read_tools
from tests.fakes.certificate import write_certificate

URL = "http://model.test/v1"
CALL = Call("call-1", "weather", '{"city": "Tromsø"}')
FIELDS = request_fields(Controls("m"), [Turn("user", "Hello")])


class Body(httpx2.AsyncByteStream):
    """A streamed answer. hang: whether it never ends. `closed` is set when the client has closed the stream."""

    def __init__(self, *deltas: dict[str, Any], error: str = "", hang: bool = False) -> None:
        self._events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        self._events += [{"error": {"message": error, "code": None}}] if error else []
        self._hang = hang
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield f"data: {json.dumps(event)}\n\n".encode()
        if self._hang:
            await asyncio.Event().wait()
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        self.closed.set()


def endpoint(answer: httpx2.Response | Exception, seen: list[httpx2.Request] | None = None) -> Endpoint:
    def handle(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Endpoint(PageSettings(base_url=URL), httpx2.MockTransport(handle))


def streaming(body: Body) -> Endpoint:
    return endpoint(httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body))


def ask(to: Endpoint) -> Conversation:
    conversation = Conversation()
    conversation.turns.append(Turn("user", "Hello"))
    conversation.ask(to.client("").with_options(max_retries=0), FIELDS, to.error_message)
    return conversation


async def finish(conversation: Conversation) -> Conversation:
    async with asyncio.timeout(30):
        async for _ in conversation.updates():
            pass
    return conversation


async def test_an_answer_with_reasoning_and_two_calls() -> None:
    calls = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 0, "function": {"arguments": " 1}"}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    body = Body(
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Well, "},
        {"reasoning_content": "well."},
        {"content": "So."},
        *({"tool_calls": [one]} for one in calls),
    )
    conversation = await finish(ask(streaming(body)))
    turn = conversation.turns[-1]
    assert (turn.reasoning, turn.text) == ("Well, well.", "So.")
    assert turn.calls == [Call("a", "f", '{"x": 1}'), Call("b", "g", "{}")]
    assert not conversation.busy and not conversation.error


async def test_stop_closes_the_stream_and_keeps_the_partial_answer() -> None:
    body = Body({"content": "Once upon"}, hang=True)
    conversation = ask(streaming(body))
    async with asyncio.timeout(30):
        async for _ in conversation.updates():
            break
        assert conversation.busy and not body.closed.is_set()
        conversation.stop()
        await body.closed.wait()
    await finish(conversation)
    assert [turn.text for turn in conversation.turns] == ["Hello", "Once upon"]
    assert conversation.turns[-1].note == STOPPED
    assert conversation.unanswered == []


async def test_an_unanswered_question_is_returned() -> None:
    refusal = {"error": {"message": "messages[0] is too long", "type": "invalid_request_error", "code": None}}
    conversation = await finish(ask(endpoint(httpx2.Response(400, json=refusal))))
    assert conversation.turns == []
    assert [turn.text for turn in conversation.unanswered] == ["Hello"]
    assert conversation.error == "The server refused this (400): messages[0] is too long."
    assert render(conversation)[-1]["content"].endswith(conversation.error)


async def test_an_error_in_the_middle_keeps_the_partial_answer() -> None:
    conversation = await finish(ask(streaming(Body({"content": "Once"}, error="the engine died"))))
    assert [turn.text for turn in conversation.turns] == ["Hello", "Once"]
    assert conversation.error == "The answer broke off: the engine died."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.ConnectError("refused"), f"The server at {URL} cannot be reached"),
        (httpx2.ConnectTimeout("late"), f"The server at {URL} cannot be reached"),
        (httpx2.Response(401, json={"error": {"message": "no"}}), "The server requires a valid API key"),
        (httpx2.Response(503, json={"error": {"message": "It is full"}}), r"refused this \(503\): It is full\."),
        (httpx2.Response(502, text="<html>"), r"refused this \(502\): "),
    ],
)
async def test_error_messages(answer: httpx2.Response | Exception, words: str, monkeypatch) -> None:
    # The client would wait and retry some of these twice.
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_: 0.0)
    with pytest.raises(PageError, match=words):
        await endpoint(answer).models("")


async def test_a_visitors_key_is_sent_only_with_their_requests() -> None:
    seen: list[httpx2.Request] = []
    models = {"object": "list", "data": [{"id": "a", "object": "model", "created": 0, "owned_by": ""}]}
    served = endpoint(httpx2.Response(200, json=models), seen)
    assert await served.models(" sk-1 ") == ["a"]
    await served.models("")
    assert [request.headers["authorization"] for request in seen] == ["Bearer sk-1", "Bearer none"]
    for bad in ("ключ", "a\nb"):
        with pytest.raises(PageError, match="characters"):
            served.client(bad)


def test_controls_become_fields() -> None:
    tools = json.dumps([{"name": "weather", "parameters": {}}])
    controls = Controls("m", "Be brief.", "0", " 0.5 ", "7", "-1", "off", tools)
    assert request_fields(controls, [Turn("user", "Hi")]) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 7,
        "seed": -1,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
        "extra_body": {"enable_thinking": False},
    }
    assert set(FIELDS) == {"model", "messages", "stream"}


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (Controls(None), "Choose a model"),
        (Controls("m", temperature="warm"), "warm is not a number: see temperature"),
        (Controls("m", top_p="nan"), "see top p"),
        (Controls("m", max_tokens="1.5"), "1.5 is not a whole number: see max tokens"),
        (Controls("m", tools="{"), "The tools are no JSON"),
        (Controls("m", tools="[1]"), "a JSON list of functions"),
    ],
)
def test_controls_that_cannot_be_sent(controls: Controls, words: str) -> None:
    with pytest.raises(PageError, match=words):
        request_fields(controls, [])


def test_turns_as_messages(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"bytes of a picture")
    url = "data:image/png;base64," + base64.b64encode(b"bytes of a picture").decode()
    assert message(Turn("user", "What is it?", (file, file)))["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is it?"},
    ]
    for suffix, media_type in ((".MP4", "mp4"), (".webm", "webm"), (".mov", "quicktime"), (".mkv", "x-matroska")):
        film = tmp_path / f"film{suffix}"
        film.write_bytes(b"frames")
        url = f"data:video/{media_type};base64,{base64.b64encode(b'frames').decode()}"
        picture, video = message(Turn("user", "", (file, film)))["content"]
        assert picture["type"] == "image_url" and video == {"type": "video_url", "video_url": {"url": url}}
    function = {"name": "weather", "arguments": '{"city": "Tromsø"}'}
    asked = Turn("assistant", reasoning="Hm.", calls=[CALL])
    assert message(asked) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call-1", "type": "function", "function": function}],
    }
    assert message(Turn("tool", "cold", call=CALL)) == {"role": "tool", "tool_call_id": "call-1", "content": "cold"}
    file.unlink()
    with pytest.raises(PageError, match="no longer kept"):
        message(Turn("user", "?", (file,)))


def test_calls_are_answered_in_their_order() -> None:
    other = Call("call-2", "time", "{}")
    turns = [Turn("user", "?"), Turn("assistant", calls=[CALL, other])]
    assert open_calls(turns) == [CALL, other]
    turns.append(Turn("tool", "cold", call=CALL))
    assert open_calls(turns) == [other]
    turns.append(Turn("tool", "noon", call=other))
    assert open_calls(turns) == []
    assert open_calls([*turns, Turn("assistant", "Cold at noon.")]) == []


def test_a_bare_function_is_a_tool() -> None:
    assert read_tools('{"name": "f"}') == [{"type": "function", "function": {"name": "f"}}]
    assert read_tools(" ") == []


def test_rendering() -> None:
    conversation = Conversation()
    answer = Turn("assistant", "Cold.", reasoning="Hm.", calls=[CALL], note="Stopped.")
    conversation.turns = [Turn("user", "?", (Path("a.png"),)), answer, Turn("tool", "a ``` b", call=CALL)]
    conversation.error = "`<image>` is no tag."
    contents = [entry["content"] for entry in render(conversation)]
    assert contents[:4] == [{"path": "a.png"}, "?", "Hm.", "Cold."]
    assert contents[4] == '```json\n{\n  "city": "Tromsø"\n}\n```'
    # The fence is longer than the one in the text, and the error is escaped.
    assert contents[5:] == ["*Stopped.*", "````json\na ``` b\n````", "⚠️ `&lt;image&gt;` is no tag."]
    assert render(conversation)[2]["metadata"] == {"title": "Reasoning", "status": "done"}


async def test_reasoning_is_open_while_it_grows() -> None:
    conversation = ask(streaming(Body({"reasoning_content": "Hm."}, hang=True)))
    async with asyncio.timeout(30):
        async for _ in conversation.updates():
            break
    assert render(conversation)[-1]["metadata"]["status"] == "pending"
    conversation.stop()
    await finish(conversation)
    assert render(conversation)[1]["metadata"]["status"] == "done"


def test_the_least_recently_used_conversation_is_deleted_with_its_pictures(tmp_path: Path) -> None:
    kept = Conversations(limit=2)
    file = tmp_path / "a.png"
    file.touch()
    names = [f"{number:032x}" for number in range(3)]
    first, second = kept.get(names[0]), kept.get(names[1])
    second.turns.append(Turn("user", "", (file,)))
    assert kept.get(names[0]) is first
    kept.get(names[2])
    assert kept.get(names[0]) is first
    assert not file.exists()
    assert kept.get(names[1]) is not second
    for bad in ("", "a", "G" * 32, names[0] + "\n"):
        with pytest.raises(ValueError, match="no id"):
            kept.get(bad)


def test_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_settings([], {}) == PageSettings()
    given = parse_settings(["--port", "1"], {"OPENAI_BASE_URL": URL, "OPENAI_API_KEY": "k"})
    assert (given.base_url, given.api_key, given.port, given.host) == (URL, "k", 1, "127.0.0.1")
    with pytest.raises(SystemExit):
        parse_settings(["--tls-key", "k.pem"], {})
    assert "go together" in capsys.readouterr().err


class _Models(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "a"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize("own", [True, False])
async def test_one_certificate_is_trusted_and_no_other(tmp_path: Path, own: bool) -> None:
    context = write_certificate(tmp_path / "server.pem")
    write_certificate(tmp_path / "other.pem")
    with HTTPServer(("127.0.0.1", 0), _Models) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        trusted = tmp_path / ("server.pem" if own else "other.pem")
        # The certificate is for another name, as one for a public name is.
        url = f"https://localhost:{server.server_port}/v1"
        client = Endpoint(PageSettings(base_url=url, api_certificate=trusted))
        if own:
            assert await client.models("") == ["a"]
        else:
            with pytest.raises(PageError, match="cannot be reached") as refused:
                await client.models("")
            causes = str(refused.value.__cause__.__cause__.__cause__)
            assert "CERTIFICATE_VERIFY_FAILED" in causes or isinstance(refused.value.__cause__.__cause__, ssl.SSLError)
        server.shutdown()
