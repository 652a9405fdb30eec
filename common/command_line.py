# SPDX-License-Identifier: Apache-2.0
"""A parser of command lines whose errors are one line that says what to write instead."""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

# How alike words must be: names of options, and values of which there are few.
_CLOSE, _CLOSE_CHOICE = 0.7, 0.5
_VALUE = re.compile(r"invalid (\w+) value: ('.*')$")
_CHOICE = re.compile(r"invalid choice: ('?)(?P<given>.*?)\1 \(choose from (?P<choices>.*)\)$")
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<words>.*)$")
_WORDS = {"int": "a whole number", "float": "a number"}
Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """An argparse parser that ends with status 2 and one line, without its usage of twenty."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and where the options are described."""
        text = self.explained(message)
        end = "" if text.endswith("?") else "."
        self.exit(2, f"error: {text}{end} `{self.prog} --help` lists the options.\n")

    def explained(self, message: str) -> str:
        """Argparse's message without the names of Python's types, and with the nearest option or choice."""
        text = message.removeprefix("argument ").rstrip(".")
        text = _VALUE.sub(lambda found: f"must be {_WORDS.get(found[1], 'another value')}, not {found[2]}", text)
        text = _CHOICE.sub(_choice, text)
        if found := _UNKNOWN.search(text):
            word = found["words"].split()[0]
            options = self._option_string_actions
            text = unknown_option(word, options) if word.startswith("-") else f"unknown argument {word}"
        # `--port: must be ...` reads better without the colon.
        return re.sub(r"^(\S+): must be", r"\1 must be", text)


def checked(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Let argparse print the message of a ValueError, instead of the function's name."""

    def parsed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def web_url(text: str) -> str:
    """An http:// or https:// address as it is given; raises ValueError for anything else."""
    try:
        address = urlsplit(text)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # Such as a port above 65535.
        usable = False
    if not usable or re.search(r"\s", text):
        raise ValueError(f"must be an address such as http://127.0.0.1:9997, not '{text}'")
    return text


def did_you_mean(word: str, known: Iterable[str], close: float = _CLOSE_CHOICE) -> str:
    """The end of a sentence that asks whether the nearest known word was meant; empty if none is near.

    close: how alike they must be, from 0 to 1.
    """
    names = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), names, 1, close)
    return f"; did you mean {names[found[0]]}?" if found else ""


def flag_of(name: str) -> str:
    """An option's name as it is written on the command line."""
    return "--" + name.replace("_", "-")


def as_written(name: str, value: object, known: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The flag of an option, and the known flags, in the form of the command line: `--no-x` says that x is false."""
    if value is not False:
        return flag_of(name), known
    return flag_of(f"no_{name}"), [f"--no-{flag.removeprefix('--')}" for flag in known]


def unknown_option(flag: str, known: Iterable[str]) -> str:
    """The message for an unknown flag. known: flags."""
    return f"unknown option {flag}{did_you_mean(flag, known, _CLOSE)}"


def _choice(found: re.Match[str]) -> str:
    choices = [choice.strip("'") for choice in found["choices"].split(", ")]
    return f"must be one of {', '.join(choices)}, not '{found['given']}'{did_you_mean(found['given'], choices)}"
