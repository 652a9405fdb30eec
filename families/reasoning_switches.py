# SPDX-License-Identifier: Apache-2.0
"""The variables by which chat templates switch reasoning, and what a request's wish is called in each.

A template is given only the variables that it reads. One that reads none may be switched by words in the messages.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import meta, nodes

from common.chat.messages import Message
from common.errors import RequestError
from common.tokenizer import ChatTokenizer, parse_template

# Variable -> its values for reasoning on and off.
SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),
    "thinking": (True, False),
    "thinking_mode": ("enabled", "disabled"),
    "reasoning": (True, False),
    "add_thoughts": (True, False),
    # Tokens; -1 is no limit.
    "thinking_budget": (-1, 0),
}
# Variables that hold an effort.
EFFORT_VARIABLES = ("reasoning_effort", "thinking_effort", "reasoning_strength")
# Words of efforts, OpenAI's and templates' own, and their order.
_RANKS = {"none": 0, "no_think": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6}
# The efforts of a template that only writes the word: those that such models were trained with.
_WRITTEN = ("low", "medium", "high")
# The effort of a request that turns reasoning on without naming one, where an effort is the only switch.
_ON = "high"
# The words in a system or user message that turn reasoning on and off.
WORDS = ("/think", "/no_think")


def template_switches(
    tokenizer: ChatTokenizer, source: str, thinking: bool | None, effort: str | None
) -> dict[str, Any]:
    """The variables of the template `source` that express the wish for reasoning.

    thinking: on, off, or None for the template's default. effort: one of common.chat.reasoning.EFFORTS.
    """
    read = variables(source)
    values = {name: SWITCHES[name][not thinking] for name in SWITCHES if thinking is not None and name in read}
    for name in EFFORT_VARIABLES:
        if name in read and (value := _effort(tokenizer, source, name, thinking, effort, switched=bool(values))):
            values[name] = value
    return values


def with_word(source: str, messages: list[Message], thinking: bool | None) -> list[Message]:
    """The messages with the word that turns reasoning on or off, for a template that only knows words.

    Such a template removes the words and follows the last message that has one, so the word joins the last message.
    """
    if thinking is None or not _reads_words(source):
        return messages
    last = max((at for at, message in enumerate(messages) if message["role"] in ("system", "user")), default=None)
    if last is None:
        return messages
    worded = {**messages[last], "content": f"{messages[last]['content']} {WORDS[not thinking]}"}
    return [*messages[:last], worded, *messages[last + 1 :]]


def _effort(
    tokenizer: ChatTokenizer, source: str, name: str, thinking: bool | None, effort: str | None, *, switched: bool
) -> str | None:
    """The value of one variable, or None to leave it unset. switched: another variable turns reasoning on and off."""
    compared = _compared(source, name)
    if thinking is False:
        off = [word for word in ("none", "no_think", "minimal") if word in compared]
        if off or switched:
            return off[0] if off else None
        effort = effort or "none"
    if effort is None:
        return _nearest(_ON, _accepted(tokenizer, source, name)) if thinking and not switched and compared else None
    return _nearest(effort, _accepted(tokenizer, source, name) if compared else _WRITTEN)


def _nearest(effort: str, accepted: Collection[str]) -> str | None:
    """The accepted word that is nearest to an effort, of two the greater effort; None if nothing is accepted."""
    if effort in accepted:
        return effort
    rank = _RANKS[effort]
    return min(accepted, key=lambda word: (abs(_RANKS[word] - rank), -_RANKS[word]), default=None)


@lru_cache(maxsize=64)
def _accepted(tokenizer: ChatTokenizer, source: str, name: str) -> tuple[str, ...]:
    """The words that the template renders as the variable's value; some refuse what they do not know."""
    on = {switch: values[0] for switch, values in SWITCHES.items() if switch in variables(source)}
    chat: list[Message] = [{"role": "user", "content": "?"}]
    accepted = []
    for word in _RANKS:
        try:
            tokenizer.render(chat, template=source, template_kwargs={**on, name: word})
        except RequestError:
            continue
        accepted.append(word)
    return tuple(accepted)


@lru_cache(maxsize=64)
def variables(source: str) -> frozenset[str]:
    """The variables that the template reads."""
    tree = parse_template(source)
    return frozenset(meta.find_undeclared_variables(tree)) if tree else frozenset()


@lru_cache(maxsize=64)
def _compared(source: str, name: str) -> frozenset[str]:
    """The texts that the template compares the variable with."""
    tree = parse_template(source)
    return frozenset(
        text
        for comparison in (tree.find_all(nodes.Compare) if tree else ())
        if any(variable.name == name for variable in comparison.find_all(nodes.Name))
        for constant in comparison.find_all(nodes.Const)
        for text in _texts(constant.value)
    )


@lru_cache(maxsize=64)
def _reads_words(source: str) -> bool:
    """Whether words in the messages are the template's only switch."""
    tree = parse_template(source)
    if tree is None or not variables(source).isdisjoint(SWITCHES):
        return False
    constants = {text for constant in tree.find_all(nodes.Const) for text in _texts(constant.value)}
    return constants.issuperset(WORDS)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
