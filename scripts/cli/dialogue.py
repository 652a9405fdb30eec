# SPDX-License-Identifier: Apache-2.0
"""The conversation at the terminal: questions, commands, and answers, which Ctrl-C stops."""

import time
from collections.abc import Mapping
from typing import Any

import openai
from openai.types.chat.chat_completion_chunk import ChatCompletionChunk, Choice
from rich.console import Console

from scripts.cli.conversation import AttachmentError, Conversation, attachment, is_attachment, picture_part
from scripts.cli.error_messages import describe
from scripts.cli.prompt import clipboard_picture, no_echo, reader
from scripts.cli.writers import Writer

HELP = """/image PATH   a picture or video for the next question, as /video; several add up
/paste        the picture in the clipboard, for the next question
/system TEXT  another system prompt; without TEXT none
/new          start a new conversation
/quit         end, as Ctrl-D does
Enter sends, Alt-Enter begins a new line, Tab completes commands and paths. A pasted text is not sent before Enter; the
path of a picture that is pasted or dropped attaches the picture. Ctrl-C stops an answer.
A line that begins with a blank is no command."""
COMMANDS = ("/image", "/video", "/paste", "/system", "/new", "/help", "/quit")
_WITH_PATH = ("/image", "/video")


class Figures:
    """Counts and times of one answer."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._first: float | None = None
        self._tokens = 0
        self._last = self._begun

    def seen(self, chunk: ChatCompletionChunk) -> list[Choice]:
        """Note a piece of the answer; returns its choices."""
        if chunk.usage is not None:
            self._tokens = chunk.usage.completion_tokens
        if chunk.choices:
            self._last = time.monotonic()
            delta = chunk.choices[0].delta
            if self._first is None and (delta.content or getattr(delta, "reasoning_content", None)):
                self._first = self._last
        return chunk.choices

    def text(self) -> str:
        """The figures in a line; empty if the server counted nothing."""
        if self._first is None or not self._tokens:
            return ""
        parts = [f"{self._tokens} token{'' if self._tokens == 1 else 's'}"]
        if self._tokens > 1 and self._last > self._first:
            parts.append(f"{(self._tokens - 1) / (self._last - self._first):.1f} tokens/s")
        return ", ".join([*parts, f"the first after {self._first - self._begun:.2f} s"])


class Dialogue:
    """One conversation with one server. sampling: parameters of every request."""

    def __init__(
        self,
        client: openai.OpenAI,
        model: str,
        conversation: Conversation,
        writer: Writer,
        notes: Console,
        sampling: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._model = model
        self._conversation = conversation
        self._writer = writer
        self._notes = notes
        self._sampling = sampling
        # Whether figures follow each answer.
        self._counts = False

    def run(self) -> int:
        """Read and answer lines until the end; always returns 0, because errors are printed as they occur."""
        known = [f"{name} " if name in _WITH_PATH else name for name in COMMANDS]
        read = reader(known, is_attachment, self._attach)
        self._counts = True
        self._note(f"{self._model} at {self._server}; /help lists the commands, Ctrl-D ends")
        while True:
            try:
                line = read()
                if line.startswith("/"):
                    if not self._command(line):
                        return 0
                elif line.strip():
                    self.answer(line.strip())
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                self._note("/quit or Ctrl-D ends")

    def answer(self, question: str) -> int:
        """Ask and show the answer; returns 0, 1 after an error, 130 if Ctrl-C stopped it."""
        self._conversation.ask(question)
        texts: list[str] = []
        figures = Figures()
        try:
            with no_echo():
                finish = self._stream(texts, figures)
        except KeyboardInterrupt:
            self._note("stopped")
            self._keep(texts)
            return 130
        except openai.OpenAIError as error:
            self._note(f"error: {describe(error, self._server)}")
            self._conversation.withdraw()
            return 1
        self._keep(texts)
        if finish == "length":
            self._note("cut: the longest answer or the context was reached")
        if self._counts and (text := figures.text()):
            self._notes.print(text, style="bright_black", markup=False)
        return 0

    def _stream(self, texts: list[str], figures: "Figures") -> str | None:
        """Show the answer while it streams, and collect its text in `texts`, even if it breaks off."""
        finish = None
        usage: dict[str, Any] = {"stream_options": {"include_usage": True}} if self._counts else {}
        try:
            # Leaving the block closes the connection, which cancels the request.
            with self._client.chat.completions.create(
                model=self._model, messages=self._conversation.messages, stream=True, **usage, **self._sampling
            ) as chunks:
                for choice in (choice for chunk in chunks for choice in figures.seen(chunk)):
                    if thought := getattr(choice.delta, "reasoning_content", None):
                        self._writer.reasoning(thought)
                    if choice.delta.content:
                        texts.append(choice.delta.content)
                        self._writer.content(choice.delta.content)
                    finish = choice.finish_reason or finish
        finally:
            self._writer.end()
        return finish

    def _keep(self, texts: list[str]) -> None:
        if texts:
            self._conversation.answer("".join(texts))
        else:
            self._conversation.withdraw()

    def _command(self, line: str) -> bool:
        """Run a command, a line that begins with a slash; False ends the conversation."""
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if name == "/quit":
            return False
        if name in _WITH_PATH:
            self._attach(rest)
        elif name == "/paste":
            self._paste()
        elif name == "/system":
            self._conversation.system = rest
            self._note("system prompt set" if rest else "no system prompt")
        elif name == "/new":
            self._conversation.restart()
            self._note("a new conversation")
        elif name == "/help":
            self._note(HELP)
        else:
            self._note(f"unknown command {name}; known: {', '.join(COMMANDS)}")
        return True

    def _attach(self, path: str) -> None:
        try:
            # A file that is dragged into a terminal comes in quotes.
            self._conversation.attach(attachment(path.strip("'\"")))
        except AttachmentError as error:
            self._note(f"error: {error}")
        else:
            self._note_attached()

    def _paste(self) -> None:
        picture = clipboard_picture()
        if picture is None:
            self._note("error: no picture in the clipboard (it is read with wl-paste or xclip)")
        else:
            self._conversation.attach(picture_part("image/png", picture))
            self._note_attached()

    def _note_attached(self) -> None:
        self._note(f"{len(self._conversation.attached)} for the next question")

    @property
    def _server(self) -> str:
        return str(self._client.base_url).rstrip("/").removesuffix("/v1")

    def _note(self, text: str) -> None:
        self._notes.print(text, style="cyan", markup=False)
