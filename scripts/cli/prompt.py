# SPDX-License-Identifier: Apache-2.0
"""Read what the user types: with history, completion and pasting on a terminal, else line by line."""

import contextlib
import io
import os
import shlex
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

Read = Callable[[], str]


def reader(commands: Sequence[str], is_picture: Callable[[str], bool], attach: Callable[[str], None]) -> Read:
    """What asks for the next question; it raises EOFError and KeyboardInterrupt as `input` does.

    commands: for completion; those that end in a blank are followed by a path. is_picture, attach: for the paths of
    files that are dropped on the terminal or pasted.
    """
    if not _is_terminal():
        return _plain_reader()
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, PathCompleter

    paths = PathCompleter(expanduser=True)

    class Commands(Completer):
        """Completes commands, and the paths after them."""

        def get_completions(self, document: "Document", complete_event: "CompleteEvent") -> Iterable["Completion"]:
            """Complete what is before the cursor."""
            from prompt_toolkit.completion import Completion
            from prompt_toolkit.document import Document

            text = document.text_before_cursor
            for command in commands if text.startswith("/") else ():
                if command.startswith(text):
                    yield Completion(command, start_position=-len(text))
                elif command.endswith(" ") and text.startswith(command):
                    rest = Document(text[len(command) :])
                    yield from paths.get_completions(rest, complete_event)

    session: PromptSession[str] = PromptSession(
        history=_history(),
        completer=Commands(),
        complete_while_typing=False,
        # A question may have several lines; Enter is bound to sending it.
        multiline=True,
        prompt_continuation="  ",
        key_bindings=_keys(is_picture, attach),
    )
    return lambda: session.prompt("> ")


@contextlib.contextmanager
def no_echo() -> Iterator[None]:
    """Do not show the keys that are typed meanwhile, nor ^C; they are read afterwards. Nothing without a terminal."""
    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (AttributeError, OSError, ValueError, termios.error):
        yield
        return
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def clipboard_picture() -> bytes | None:
    """The picture in the clipboard as PNG; None if there is none, or nothing that reads it (wl-paste, xclip)."""
    from PIL import Image, ImageGrab

    try:
        found = ImageGrab.grabclipboard()
    except (NotImplementedError, OSError):
        return None
    if not isinstance(found, Image.Image):
        return None
    file = io.BytesIO()
    found.save(file, "PNG")
    return file.getvalue()


def dropped_path(text: str) -> str | None:
    """The path in a pasted text that is one path, as terminals write it: quoted, escaped, or as a file: address."""
    try:
        words = shlex.split(text.strip())
    except ValueError:
        return None
    # A path with blanks may come without quotes.
    path = words[0] if len(words) == 1 else text.strip()
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    return path if path and "\n" not in path else None


def _keys(is_picture: Callable[[str], bool], attach: Callable[[str], None]) -> "KeyBindings":
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.keys import Keys

    keys = KeyBindings()

    # Enter that was typed while an answer streamed comes as a line feed.
    @keys.add("enter")
    @keys.add("c-j")
    def send(event: "KeyPressEvent") -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    @keys.add(Keys.BracketedPaste)
    def paste(event: "KeyPressEvent") -> None:
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        path = dropped_path(text)
        if path is not None and is_picture(path):
            run_in_terminal(lambda: attach(path))
        else:
            event.current_buffer.insert_text(text)

    return keys


def _history() -> "History":
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "triton-chat" / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Questions are nobody else's business.
        os.close(os.open(file, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


def _is_terminal() -> bool:
    try:
        return os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, OSError, ValueError):
        return False


def _plain_reader() -> Read:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 # its presence gives input() history and editing
    return lambda: input("> ")
