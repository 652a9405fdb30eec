# SPDX-License-Identifier: Apache-2.0
"""Feed made-up input to what reads clients' and models' text: `python -m tests.fuzz --seconds 600`.

Only RequestError may come out, and nothing may take long. Each target runs under hypothesis with a new seed every
round; a failure is printed with the smallest input that shows it, and the exit status is 1.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.answer_options import AnswerOptions
from common.chat.request import ChatRequest
from common.errors import RequestError
from families.parsers import TOOL_FORMATS, AnswerFormat, ChatParser, ContentDelta
from preprocessing.guides.build import GUIDE_TYPES, build_guide, check_guide

EXAMPLES = 500  # per target and round
SLOW = 2.0  # seconds of CPU for one input

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = """
    messages role content type text image_url detail tools function name parameters strict tool_choice tool_calls
    arguments response_format json_schema schema structured_outputs regex choice grammar json chat_template_kwargs
    properties enum const pattern items minItems maxItems $ref user assistant system object string array json_object
    video_url mm_processor_kwargs media_io_kwargs images_kwargs videos_kwargs video num_frames fps max_pixels size height
""".split()  # noqa: SIM905 - a table of words
WORDS = st.sampled_from(FIELDS)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)
MARKUP = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        '{"name": "f", "arguments": ',
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        ",",
        "```json\n",
        "```",
        "\n",
        "\ud83d",
        "\0",
        ": ",
        "1e999",
    ]
)
ANSWERS = st.lists(MARKUP | st.text(max_size=8), max_size=30).map("".join)
PATTERNS = st.lists(st.sampled_from([*"ab.|()[]{}?*+\\^$,-01 ", "{0,9}", "(a", "b)*", "::=", '"x"']), max_size=60)


def chat(value: Any) -> None:
    """A chat request, and the guide that it asks for."""
    request = ChatRequest.parse(json.dumps(value))
    build_guide(request, AnswerFormat("think", tool_parser="hermes"), "may_open")


def guide(kind: str, text: str) -> None:
    """A guide that came as tensors."""
    check_guide(kind, text)


def answer(parser: str, text: str, cut: int) -> None:
    """A model's answer in pieces says the same as the whole."""
    read = []
    for pieces in ([text], [text[i : i + cut] for i in range(0, len(text), cut)]):
        one = ChatParser(AnswerFormat("think", tool_parser=parser), AnswerOptions(chat=True, tools=True))
        events = [event for piece in pieces for event in one.feed(piece)] + one.flush()
        read.append("".join(event.text for event in events if isinstance(event, ContentDelta)))
    if read[0] != read[1]:
        raise AssertionError(read)


TARGETS: dict[str, tuple[Callable[..., None], dict[str, st.SearchStrategy[Any]]]] = {
    "chat": (chat, {"value": st.fixed_dictionaries({"messages": VALUES}) | VALUES}),
    "guide": (
        guide,
        {"kind": st.sampled_from(sorted(GUIDE_TYPES)), "text": PATTERNS.map("".join) | VALUES.map(json.dumps)},
    ),
    "answer": (answer, {"parser": st.sampled_from(sorted(TOOL_FORMATS)), "text": ANSWERS, "cut": st.integers(1, 5)}),
}


def fuzz(name: str) -> None:
    """One round of one target; raises what it finds."""
    target, strategies = TARGETS[name]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(**strategies)
    def run(**values: Any) -> None:
        started = time.process_time()
        try:
            target(**values)
        except RequestError as error:
            error.encode()
        if time.process_time() - started > SLOW:
            raise AssertionError("took long")

    run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: %(default)s)")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this; may be repeated")
    options = parser.parse_args()
    end, rounds = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        for name in options.target or sorted(TARGETS):
            fuzz(name)
        rounds += 1
    sys.stdout.write(f"{rounds} rounds of {EXAMPLES} inputs to each target, nothing found\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
