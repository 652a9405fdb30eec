# SPDX-License-Identifier: Apache-2.0
"""The conversation at the terminal: questions, commands, and answers, which Ctrl-C stops."""

import contextlib
from collections.abc import Mapping
from typing import Any

import openai
from rich.console import Console

from scripts.cli.conversation import AttachmentError, Conversation, attachment
from scripts.cli.error_messages import describe
from scripts.cli.writers import Writer

HELP = """/image PATH   a picture or video for the next question, as /video; several add up
/system TEXT  another system prompt; without TEXT none
/new          start a new conversation
/quit         end, as Ctrl-D does
Ctrl-C stops an answer. A line that begins with a blank is no command."""
COMMANDS = ("/image", "/video", "/system", "/new", "/help", "/quit")


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

    def run(self) -> int:
        """Read and answer lines until the end; always returns 0, because errors are printed as they occur."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 # its presence gives input() history and editing
        self._note(f"{self._model} at {self._server}; /help lists the commands, Ctrl-D ends")
        while True:
            try:
                line = input("> ")
                if line.startswith("/"):
                    if not self._command(line):
                        return 0
                elif line.strip():
                    self.answer(line.strip())
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                self._note("\n/quit or Ctrl-D ends")

    def answer(self, question: str) -> int:
        """Ask and show the answer; returns 0, 1 after an error, 130 if Ctrl-C stopped it."""
        self._conversation.ask(question)
        texts: list[str] = []
        try:
            finish = self._stream(texts)
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
        return 0

    def _stream(self, texts: list[str]) -> str | None:
        """Show the answer while it streams, and collect its text in `texts`, even if it breaks off."""
        finish = None
        try:
            # Leaving the block closes the connection, which cancels the request.
            with self._client.chat.completions.create(
                model=self._model, messages=self._conversation.messages, stream=True, **self._sampling
            ) as chunks:
                for choice in (choice for chunk in chunks for choice in chunk.choices):
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
        if name in ("/image", "/video"):
            self._attach(rest)
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
            self._note(f"{len(self._conversation.attached)} for the next question")

    @property
    def _server(self) -> str:
        return str(self._client.base_url).rstrip("/").removesuffix("/v1")

    def _note(self, text: str) -> None:
        self._notes.print(text, style="cyan", markup=False)
