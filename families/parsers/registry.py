# SPDX-License-Identifier: Apache-2.0
"""The tool parsers by name."""

from collections.abc import Callable, Mapping

from families.parsers.events import Parser
from families.parsers.gemma import GemmaParser
from families.parsers.hermes import HermesParser
from families.parsers.llama3_json import Llama3JsonParser

TOOL_PARSERS: Mapping[str, Callable[[], Parser]] = {
    "gemma": GemmaParser,
    "hermes": HermesParser,
    "llama3_json": Llama3JsonParser,
}

# The form of calls for families that have none of their own.
GENERIC = "hermes"


def find_tool_parser(name: str) -> Callable[[], Parser]:
    """The class of a tool parser; raises ValueError for an unknown name, listing the known ones."""
    try:
        return TOOL_PARSERS[name]
    except KeyError:
        raise ValueError(f"unknown tool parser '{name}'; known: {', '.join(sorted(TOOL_PARSERS))}") from None
