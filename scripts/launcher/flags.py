# SPDX-License-Identifier: Apache-2.0
"""Split a command line into the launcher's own options and those of the engine and the frontend.

An engine option needs no declaration here: `--tensor-parallel-size 2` becomes `tensor_parallel_size: 2`, so that a
`vllm serve` line works unchanged and new engine options need no release of this project.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# The short forms of `vllm serve`.
SHORT_FORMS = {
    "-O": "--optimization-level",
    "-ac": "--attention-config",
    "-cc": "--compilation-config",
    "-dc": "--diffusion-config",
    "-dcp": "--decode-context-parallel-size",
    "-dp": "--data-parallel-size",
    "-dpa": "--data-parallel-address",
    "-dpb": "--data-parallel-backend",
    "-dpe": "--data-parallel-external-lb",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpl": "--data-parallel-size-local",
    "-dpm": "--data-parallel-multi-port-external-lb",
    "-dpn": "--data-parallel-rank",
    "-dpp": "--data-parallel-rpc-port",
    "-dpr": "--data-parallel-start-rank",
    "-ep": "--enable-expert-parallel",
    "-n": "--nnodes",
    "-pcp": "--prefill-context-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
    "-r": "--node-rank",
    "-sc": "--speculative-config",
    "-tp": "--tensor-parallel-size",
}
# A short form, alone or before a value or a field.
_SHORT = re.compile(rf"(?:{'|'.join(SHORT_FORMS)})(?:[=.]|$)")
# `vllm serve` takes the level with and without a space or "=".
_LEVEL = re.compile(r"-O=?(\w+)")
# Engine flags that take several words, and may be repeated.
SEVERAL = frozenset({"--lora-modules", "--allowed-lora-path"})
# Numbers that JSON does not have in this form: `.9`, `4.` and `+0.5`.
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKmMgG])")
# As `vllm serve` reads them: lower case is decimal, upper case binary.
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True, slots=True)
class Flag:
    """One `--flag` and the words after it, up to the next flag. joined: written as `--flag=word`."""

    name: str
    words: tuple[str, ...]
    joined: bool

    @property
    def key(self) -> str:
        """The option's name as engines spell it: `--max-num-seqs` is max_num_seqs. After a dot it stays as it is."""
        name, dot, field = self.name.removeprefix("--").partition(".")
        return f"{name.replace('-', '_')}{dot}{field}"


def split(arguments: Sequence[str], own: Collection[str]) -> tuple[list[str], list[Flag]]:
    """Split the arguments into the launcher's and the flags of others.

    own: the option strings of the launcher. A foreign flag takes at most one word, those of
    SEVERAL all that follow; further words are the launcher's.
    """
    ours: list[str] = []
    loose: list[str] = []
    foreign: list[Flag] = []
    for flag in _flags(arguments, own):
        if flag.name in own:
            ours += [f"{flag.name}={flag.words[0]}"] if flag.joined else [flag.name, *flag.words]
        elif flag.name:
            taken = len(flag.words) if flag.name in SEVERAL else 1
            foreign.append(Flag(flag.name, flag.words[:taken], flag.joined))
            loose += flag.words[taken:]
        else:
            loose += flag.words
    # First, because a flag of ours that takes several words would swallow them.
    return loose + ours, foreign


def _flags(arguments: Sequence[str], own: Collection[str]) -> Iterator[Flag]:
    """Group words with the flag before them; the words before the first flag get the name ""."""
    name, words = "", []
    for written in arguments:
        level = _LEVEL.fullmatch(written)
        argument = f"{SHORT_FORMS['-O']}={level[1]}" if level else written
        if not argument.startswith("--") and _SHORT.match(argument) is None and argument not in own:
            words.append(argument)
            continue
        if name or words:
            yield Flag(name, tuple(words), joined=False)
        name, equals, value = argument.partition("=")
        name, words = _declared(name), []
        if equals:
            yield Flag(name, (value,), joined=True)
            name = ""
    if name or words:
        yield Flag(name, tuple(words), joined=False)


def _declared(flag: str) -> str:
    """The flag in its long form: up to a dot, `vllm serve` takes short forms, and underscores for dashes."""
    name, dot, field = flag.partition(".")
    return f"{SHORT_FORMS.get(name, name.replace('_', '-'))}{dot}{field}"


def option(flag: Flag) -> tuple[str, Any]:
    """Name and value of an engine option: `--x` is true, `--no-x` false, a word is JSON, a size or text.

    An option of SEVERAL is a list of its words; lists and objects among them may be JSON.
    """
    if flag.name in SEVERAL:
        values = [value_of(word) if word.startswith(("[", "{")) else word for word in flag.words]
        return flag.key, [one for value in values for one in (value if isinstance(value, list) else [value])]
    if flag.words:
        return flag.key, value_of(flag.words[0])
    if flag.key.startswith("no_"):
        return flag.key.removeprefix("no_"), False
    return flag.key, True


def value_of(text: str) -> Any:
    """Convert a word of the command line: JSON, true, false, none, a number, a size such as 16k, else the text."""
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    return field_value(text)


def field_value(text: str) -> Any:
    """Convert the value of a field within an option: JSON, a number, a size, else the text, which "none" is too.

    So does `vllm serve`: fields such as `cudagraph_mode` have a choice of that name.
    """
    if _SIZE.fullmatch(text):
        return size_of(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return float(text) if _DECIMAL.fullmatch(text) else text


def size_of(text: str) -> int:
    """Convert a count such as 16384, 16k (16,000) or 16K (16,384); raises ValueError for others and below 1."""
    sized = _SIZE.fullmatch(text)
    count = int(float(sized["number"]) * _UNITS[sized["unit"]]) if sized else int(text)
    if count < 1:
        raise ValueError(f"{text} is below 1")
    return count
