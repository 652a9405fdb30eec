# SPDX-License-Identifier: Apache-2.0
"""The chat in a pseudo-terminal, with the real frontend before a fake Triton: keys, pasting, history, Ctrl-C."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.cli.prompt import dropped_path
from tests.fakes.fake_triton import Call, answer_of, reply
from tests.fakes.frontend_server import Serving
from tests.support.terminal import CTRL_C, CTRL_D, Terminal, terminal

PASTE = "\x1b[200~{}\x1b[201~"
ALT_ENTER = "\x1b\r"
UP, TAB = "\x1b[A", "\t"
GREY = "\x1b[90m"


@pytest.fixture
def served(served: Serving) -> Serving:
    served.triton.script = answer_of("Fine.")
    return served


@contextmanager
def chat(url: str, home: Path) -> Iterator[Terminal]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI")}
    environment |= {"XDG_STATE_HOME": str(home), "PROMPT_TOOLKIT_NO_CPR": "1"}
    with terminal([sys.executable, "-m", "scripts.cli", "chat", "--url", url], environment) as one:
        one.wait_for("Ctrl-D ends")
        one.wait_for_prompt()
        yield one
        one.wait_for_prompt()
        one.type(CTRL_D)
        assert one.process.wait(60) == 0


def questions(served: Serving) -> list[object]:
    return [call.messages["messages"][-1]["content"] for call in served.triton.calls]


@pytest.mark.asyncio(loop_scope="module")
class TestTerminal:
    async def run(self, steps: Callable[[], None]) -> None:
        """Run what types and waits in a thread: the frontend runs here."""
        await asyncio.to_thread(steps)

    async def test_lines_history_and_figures(self, served: Serving, tmp_path: Path) -> None:
        def steps() -> None:
            with chat(served.url, tmp_path) as one:
                one.type("How are" + ALT_ENTER + "you?\r")
                one.wait_for(", the first after")
                assert GREY in one.raw
            with chat(served.url, tmp_path) as one:
                one.type(UP + "\r")
                one.wait_for(", the first after")

        await self.run(steps)
        assert questions(served) == ["How are\nyou?"] * 2
        assert (tmp_path / "triton-chat" / "history").stat().st_mode & 0o777 == 0o600

    async def test_a_pasted_text_is_sent_by_enter_only(self, served: Serving, tmp_path: Path) -> None:
        def steps() -> None:
            with chat(served.url, tmp_path) as one:
                one.type(PASTE.format("one\r\ntwo\r") + "three")
                one.wait_for("three")
                assert not served.triton.calls
                one.type("\r")
                one.wait_for(", the first after")

        await self.run(steps)
        assert questions(served) == ["one\ntwo\nthree"]

    async def test_a_dropped_picture_is_attached_and_commands_are_completed(
        self, served: Serving, tmp_path: Path
    ) -> None:
        picture = tmp_path / "my photo.png"
        picture.write_bytes(b"\x89PNG\r\n\x1a\nnot really")

        def steps() -> None:
            with chat(served.url, tmp_path) as one:
                one.type(PASTE.format(str(picture).replace(" ", "\\ ")))
                one.wait_for("1 for the next question")
                one.type("/ima" + TAB)
                one.wait_for("/image")
                one.type(f"{tmp_path}/my" + TAB)
                one.wait_for("photo.png")
                one.type("\r")
                one.wait_for("2 for the next question")
                one.type("What is this?\r")
                one.wait_for(", the first after")

        await self.run(steps)
        (asked,) = questions(served)
        assert isinstance(asked, list)
        assert [part["type"] for part in asked] == ["image_url", "image_url", "text"]

    async def test_keys_are_not_shown_while_an_answer_streams_and_ctrl_c_stops_it(
        self, served: Serving, tmp_path: Path
    ) -> None:
        async def endless(call: Call):
            while True:
                yield reply("word ")
                await asyncio.sleep(0.05)

        served.triton.script = endless

        def steps() -> None:
            with chat(served.url, tmp_path) as one:
                one.type("Go on\r")
                one.wait_for("word word")
                one.type("zebra")
                one.wait_for("word", times=one.text.count("word") + 5)
                assert "zebra" not in one.text
                one.type(CTRL_C)
                one.wait_for("stopped")
                assert "^C" not in one.text
                one.type(CTRL_C)
                one.wait_for("/quit or Ctrl-D ends")

        await self.run(steps)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a/b.png", "/a/b.png"),
        ("'/a/b c.png' ", "/a/b c.png"),
        ("/a/b\\ c.png", "/a/b c.png"),
        ("/a/b c.png", "/a/b c.png"),
        ("file:///a/b%20c.png", "/a/b c.png"),
        ("it's", None),
        ("/a.png\n/b.png", None),
        ("", None),
    ],
)
def test_paths_as_terminals_write_them(text: str, path: str | None) -> None:
    assert dropped_path(text) == path
