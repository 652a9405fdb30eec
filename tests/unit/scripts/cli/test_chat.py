# SPDX-License-Identifier: Apache-2.0
"""`triton-chat chat` against the real frontend before a fake Triton, and its parts by themselves."""

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scripts.cli.conversation import AttachmentError, Conversation, attachment
from scripts.cli.main import main
from scripts.cli.writers import LiveWriter, PipeWriter, complete_blocks
from tests.fakes.fake_triton import answer_of, failure, finish, reply
from tests.fakes.frontend_server import Serving, serving

PICTURE = b"\x89PNG\r\n\x1a\nnot really"


class Piped(io.StringIO):
    """Standard input or output that is no terminal."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)


class Typed(Piped):
    """Lines typed at a terminal."""

    def isatty(self) -> bool:
        return True


async def chat(url: str, *line: str) -> int:
    return await asyncio.to_thread(main, ["chat", "--url", url, *line])


@pytest.mark.asyncio(loop_scope="module")
class TestOneAnswer:
    async def test_only_the_answer_is_on_standard_output(self, served: Serving, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", Piped())
        assert await chat(served.url, "Say", "hello") == 0
        assert capsys.readouterr().out == "Hello world\n"
        (call,) = served.triton.calls
        assert call.messages["messages"] == [{"role": "user", "content": "Say hello"}]
        assert call.model == "ensemble"

    @pytest.mark.parametrize(
        ("words", "asked"), [((), "a diff"), (("Explain", "this"), "Explain this\n\na diff")], ids=["alone", "both"]
    )
    async def test_standard_input_is_asked(self, served: Serving, words, asked: str, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", Piped("a diff\n"))
        assert await chat(served.url, *words) == 0
        assert served.triton.calls[0].messages["messages"][-1]["content"] == asked

    async def test_fields_of_the_request(self, served: Serving, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", Piped())
        flags = ["--system", "Be brief.", "--temperature", "0.5", "--max-tokens", "7", "--model", "org/model:1"]
        assert await chat(f"{served.url}/v1/", *flags, "Hi") == 0
        (call,) = served.triton.calls
        assert call.messages["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (call.inputs["temperature"], call.inputs["max_tokens"]) == ([0.5], [7])

    async def test_reasoning_and_a_cut_answer_are_reported_on_standard_error(
        self, served: Serving, monkeypatch, capsys
    ) -> None:
        async def script(call):
            yield reply("", reasoning_output="Let me think.")
            yield finish("length", text="Well")

        served.triton.script = script
        monkeypatch.setattr("sys.stdin", Piped())
        assert await chat(served.url, "Hi") == 0
        output = capsys.readouterr()
        assert output.out == "Well\n"
        assert output.err.startswith("Let me think.\n")
        assert "cut: " in output.err

    async def test_an_image_is_sent_with_the_question(
        self, served: Serving, tmp_path: Path, monkeypatch, capsys
    ) -> None:
        picture = tmp_path / "photo.png"
        picture.write_bytes(PICTURE)
        monkeypatch.setattr("sys.stdin", Piped())
        assert await chat(served.url, "--image", str(picture), "What is this?") == 0
        (call,) = served.triton.calls
        (message,) = call.messages["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        assert len(call.inputs["images"]) == 1

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--model", "gpt-9"], "The model does not exist; served: model"),
            (["--image", "/nowhere.png"], "'/nowhere.png' cannot be read: No such file or directory."),
            (["--image", "notes.txt"], "'notes.txt' is not a picture or video by its name"),
            (["--temperature", "-1"], "temperature"),
        ],
    )
    async def test_errors_are_explained_in_a_sentence(
        self, served: Serving, flags, words: str, monkeypatch, capsys
    ) -> None:
        monkeypatch.setattr("sys.stdin", Piped())
        assert await chat(served.url, *flags, "Hi") == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert words in output.err
        assert "{" not in output.err and "Traceback" not in output.err
        assert output.err.rstrip().endswith(".")

    async def test_an_empty_question_is_refused(self, served: Serving, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", Piped("\n"))
        assert await chat(served.url) == 1
        assert "nothing was asked" in capsys.readouterr().err

    async def test_no_server(self, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", Piped())
        assert await chat("http://127.0.0.1:9", "Hi") == 1
        assert "nothing answers at http://127.0.0.1:9." in capsys.readouterr().err

    async def test_a_missing_key_is_explained(self, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", Piped())
        async with serving(api_key=("secret",)) as locked:
            assert await chat(locked.url, "Hi") == 1
            assert "Give a key with --api-key or OPENAI_API_KEY." in capsys.readouterr().err
            monkeypatch.setenv("OPENAI_API_KEY", "secret")
            assert await chat(locked.url, "Hi") == 0


@pytest.mark.asyncio(loop_scope="module")
class TestConversation:
    async def test_turns_commands_and_errors(self, served: Serving, tmp_path: Path, monkeypatch, capsys) -> None:
        served.triton.script = answer_of("Fine.")
        lines = ["How are you?", "And now?", "/system Be brief.", "/new", "Who?", "/nonsense", "/image x.txt", "/help"]
        monkeypatch.setattr("sys.stdin", Typed("\n".join([*lines, "/quit", "never asked"]) + "\n"))
        assert await chat(served.url, "--plain") == 0
        asked = [call.messages["messages"] for call in served.triton.calls]
        first = [{"role": "user", "content": "How are you?"}]
        assert asked[0] == first
        assert [message["content"] for message in asked[1]] == ["How are you?", "Fine.", "And now?"]
        assert [message["content"] for message in asked[2]] == ["Be brief.", "Who?"]
        assert len(asked) == 3
        output = capsys.readouterr().err
        assert "model at http://127.0.0.1" in output
        assert "unknown command /nonsense; known: /image, /video, /paste, /system, /new, /help, /quit" in output
        assert "'x.txt' is not a picture" in output
        assert "/quit         end" in output

    async def test_a_failed_question_is_removed(self, served: Serving, monkeypatch, capsys) -> None:
        def script(call) -> Any:
            asked = call.messages["messages"][-1]["content"]
            return answer_of("Fine.")(call) if asked == "Hi" else bad(call)

        async def bad(call):
            yield failure("scripted")

        served.triton.script = script
        monkeypatch.setattr("sys.stdin", Typed("first\nHi\n"))
        assert await chat(served.url, "--plain") == 0
        assert [message["content"] for message in served.triton.calls[-1].messages["messages"]] == ["Hi"]
        assert "error: " in capsys.readouterr().err


def test_a_file_is_sent_as_data(tmp_path: Path) -> None:
    for name, media_type, kind in [
        ("a.PNG", "image/png", "image_url"),
        ("b.webp", "image/webp", "image_url"),
        ("c.mp4", "video/mp4", "video_url"),
    ]:
        (tmp_path / name).write_bytes(PICTURE)
        data = base64.b64encode(PICTURE).decode()
        expected = {"type": kind, kind: {"url": f"data:{media_type};base64,{data}"}}
        assert attachment(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("url", "kind"),
    [("https://h/a.png?x=1", "image_url"), ("http://h/a", "image_url"), ("http://h/a.mp4", "video_url")],
)
def test_an_address_is_left_to_the_server(url: str, kind: str) -> None:
    assert attachment(url) == {"type": kind, kind: {"url": url}}


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(AttachmentError, match="cannot be read: Is a directory"):
        attachment(str(tmp_path / "x.png"))


def test_pictures_belong_to_one_question() -> None:
    conversation = Conversation("S")
    conversation.attach({"type": "image_url", "image_url": {"url": "data:1"}})
    conversation.attach({"type": "image_url", "image_url": {"url": "data:2"}})
    conversation.ask("What?")
    conversation.answer("Two.")
    conversation.ask("Sure?")
    system, first, answer, second = conversation.messages
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert (system["content"], answer["content"], second["content"]) == ("S", "Two.", "Sure?")
    assert json.dumps(conversation.messages)


# What is on the screen.


def screen(*pieces: str, thoughts: str = "") -> str:
    out = io.StringIO()
    writer = LiveWriter(Console(file=out, force_terminal=True, width=60, color_system=None, legacy_windows=False))
    if thoughts:
        writer.reasoning(thoughts)
    for piece in pieces:
        writer.content(piece)
    writer.end()
    return out.getvalue()


def test_markdown_is_rendered() -> None:
    shown = screen("# Title\n\nSome **bold** te", "xt.\n\n```python\nx = 1\n\ny = 2\n```\n\n- one\n", "- two\n")
    last = shown[shown.rindex("Title") :]
    assert "**" not in last and "```" not in last
    assert "Some bold text." in last
    assert "x = 1" in last and "y = 2" in last
    assert "• one" in last and "• two" in last


def test_an_answer_longer_than_the_screen_is_complete() -> None:
    lines = [f"line {number}\n\n" for number in range(200)]
    shown = screen(*lines)
    assert all(f"line {number} " in shown for number in range(200))


def test_an_answer_of_one_long_block_is_complete() -> None:
    shown = screen(*[f"word{number} " for number in range(900)])
    final = shown[shown.rindex("word0 ") :]
    assert all(f"word{number}" in final for number in range(900))


def test_a_models_text_does_not_control_the_terminal() -> None:
    shown = screen("be\x1b]0;title\x07fore \x1b[31mred\x9b2J", thoughts="th\x1b[2Jink")
    assert "\x1b]0" not in shown and "\x1b[31m" not in shown and "\x9b" not in shown and "\x07" not in shown
    assert "\x1b[2Jink" not in shown
    assert "th[2Jink" in shown


def test_a_pipe_gets_every_byte() -> None:
    out, notes = io.StringIO(), io.StringIO()
    writer = PipeWriter(out, Console(file=notes))
    writer.reasoning("hm")
    writer.content("a\x1b[31m\n")
    writer.content("b\n")
    writer.end()
    assert out.getvalue() == "a\x1b[31m\nb\n"
    assert notes.getvalue() == "hm\n"


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\n\ntwo", "one\n\n"),
        ("one\n\n", ""),
        ("one", ""),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("1. a\n\n2. b", ""),
        ("- a\n\n- b\n\nend", "- a\n\n- b\n\n"),
    ],
)
def test_blocks_are_cut_where_markdown_may_be(text: str, done: str) -> None:
    assert complete_blocks(text) == (done, text.removeprefix(done))
