# SPDX-License-Identifier: Apache-2.0
"""`triton-chat chat`: a conversation in the terminal, or one question and its answer for scripts."""

import argparse
import os
import sys
from collections.abc import Sequence

from common.command_line import Parser, checked, web_url
from scripts.shared.errors import CommandError

_ABOUT = """Talk to a server. Without a question on a terminal it is a conversation (/help lists its commands); with a
question, or with one on standard input, it is one answer on standard output."""
_EXAMPLES = """examples:
  triton-chat chat
  triton-chat chat --image photo.jpg "What is in this picture?"
  git diff | triton-chat chat "Write a commit message for this." """
_URL = "http://127.0.0.1:9997"


def main(arguments: Sequence[str] | None = None) -> int:
    """Talk to the server; returns 0, 1 after a failed answer, 130 after Ctrl-C in a single answer.

    Raises CommandError if there is nothing to ask or the server cannot be used.
    """
    options = _parse(arguments)
    # They take a second to import, which --help need not wait for.
    import openai
    from rich.console import Console

    from scripts.cli.conversation import Conversation, attachment
    from scripts.cli.dialogue import Dialogue
    from scripts.cli.error_messages import describe
    from scripts.cli.writers import LiveWriter, PipeWriter

    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    client = openai.OpenAI(base_url=_base_url(options.url), api_key=options.api_key, max_retries=0)
    question = _question(options.question)
    if question == "":
        raise CommandError("nothing was asked: standard input is empty.")
    conversation = Conversation(options.system)
    for path in options.image:
        conversation.attach(attachment(path))
    try:
        model = options.model or client.models.list().data[0].id
    except (openai.OpenAIError, IndexError) as error:
        raise CommandError(describe(error, options.url)) from error
    console = Console(highlight=False)
    live = console.is_terminal and not options.plain
    writer = LiveWriter(console) if live else PipeWriter(sys.stdout, notes)
    sampling = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    chosen = {name: value for name, value in sampling.items() if value is not None}
    dialogue = Dialogue(client, model, conversation, writer, notes, chosen)
    return dialogue.run() if question is None else dialogue.answer(question)


def _base_url(url: str) -> str:
    bare = url.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def _question(words: Sequence[str]) -> str | None:
    """The question of the line, followed by standard input if that is no terminal; None for a conversation."""
    asked = " ".join(words)
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    both = "\n\n".join(part for part in (asked, piped) if part)
    return both or (None if sys.stdin is not None and sys.stdin.isatty() else "")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="triton-chat chat",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("question", nargs="*", metavar="QUESTION", help="ask this and exit")
    add("--url", type=checked(web_url), default=_URL, help=f"the server (default {_URL})")
    add("--model", help="default: the first of /v1/models")
    add(
        "--image",
        action="append",
        default=[],
        metavar="PATH",
        help="picture or video for the first question; repeatable",
    )
    add("--system", default="", metavar="TEXT", help="system prompt")
    key = os.environ.get("OPENAI_API_KEY") or "none"
    add("--api-key", default=key, metavar="KEY", help="for a server with keys (default: OPENAI_API_KEY)")
    add("--temperature", type=float, help="default: the model's")
    add("--max-tokens", type=int, help="longest answer, in tokens")
    add("--plain", action="store_true", help="text as it comes instead of rendered Markdown")
    return parser.parse_args(sys.argv[1:] if arguments is None else arguments)
