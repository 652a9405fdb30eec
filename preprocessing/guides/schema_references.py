# SPDX-License-Identifier: Apache-2.0
"""The references in a JSON schema, and the definitions that they lead to."""

import json
from collections.abc import Iterator
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from common.checks import PositionError, expect, shorten
from preprocessing.guides.json_values import objects
from preprocessing.guides.keywords import ENFORCED, REFUSED, Schema

_PREFIX = "#/$defs/"


class References:
    """The references of one schema, of which those that are followed get a name among its definitions.

    where: the schema's position, for errors. Raises RequestError for references in a part that has an `$id`.
    """

    def __init__(self, root: Schema, where: str) -> None:
        self._root = root
        self._where = where
        # Targets by their identity: the name among the definitions, the target, and its position.
        self._targets: dict[int, tuple[str, Any, str]] = {}
        for one in objects(root):
            own = one.get("$id")
            if one is root or not isinstance(own, str) or _is_fragment(own):
                continue
            if "$ref" in json.dumps(one):
                raise PositionError(where, f"has references in a part with an $id: '{shorten(own)}'")

    @property
    def targets(self) -> list[tuple[str, Any, str]]:
        """The name, the schema and the position of each definition, in the order in which they were named."""
        return list(self._targets.values())

    def named(self, reference: str) -> tuple[Any, str]:
        """The schema and the position of a definition that `name` has named."""
        return next((target, where) for name, target, where in self.targets if _PREFIX + name == reference)

    def follow(self, reference: str, where: str) -> tuple[Any, str]:
        """What a reference leads to, and its position."""
        seen: set[str] = set()
        while reference not in seen:
            seen.add(reference)
            target, position = self._find(reference, where)
            chained = isinstance(target, dict) and isinstance(target.get("$ref"), str)
            if not chained or any(name in ENFORCED or name in REFUSED for name in target if name != "$ref"):
                return target, position
            reference = target["$ref"]
        raise PositionError(where, f"has a $ref that leads to itself: '{shorten(reference)}'")

    def _find(self, reference: str, where: str) -> tuple[Any, str]:
        document, _, fragment = reference.partition("#")
        own = self._root.get("$id", "")
        if document and document != (own.split("#")[0] if isinstance(own, str) else None):
            raise PositionError(where, f"has a $ref to outside of the schema: '{shorten(reference)}'")
        target, position = self._root, self._where
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise PositionError(where, f"has a $ref to nothing: '{shorten(reference)}'")
            return self._anchors[fragment], f"{self._where}#{shorten(fragment, 40)}"
        for part in fragment.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
                target, position = target[int(name[:9])], f"{position}[{int(name[:9])}]"
            elif isinstance(target, dict) and name in target:
                target, position = target[name], f"{position}.{shorten(name, 40)}"
            else:
                raise PositionError(where, f"has a $ref to nothing: '{shorten(reference)}'")
        return target, position

    @cached_property
    def _anchors(self) -> dict[str, Schema]:
        """Subschemas by their `$anchor`, or their `$id` of "#" and a name, as it was up to draft 7."""
        found = [(one.get("$anchor"), one) for one in objects(self._root)]
        found += [
            (one.get("$id", "").removeprefix("#"), one) for one in objects(self._root) if _is_fragment(one.get("$id"))
        ]
        return {name: one for name, one in found if isinstance(name, str)}

    def name(self, target: Any, where: str) -> Schema | bool:
        """A reference to a schema, which becomes a definition; a boolean stays what it is."""
        if isinstance(target, bool):
            return target
        expect(target, dict, where)
        if id(target) not in self._targets:
            self._targets[id(target)] = f"d{len(self._targets)}", target, where
        return {"$ref": _PREFIX + self._targets[id(target)][0]}

    def check_recursion(self, definitions: Schema) -> None:
        """Raise RequestError for definitions that are their own alternatives, or have no finite value."""
        positions = {name: where for name, _, where in self._targets.values()}
        try:
            TopologicalSorter({name: set(_alternatives_of(part)) for name, part in definitions.items()}).prepare()
        except CycleError as error:
            raise PositionError(positions[error.args[1][0]], "is one of its own alternatives") from None
        users: dict[str, list[str]] = {name: [] for name in definitions}
        for name, part in definitions.items():
            for target in {
                one["$ref"].removeprefix(_PREFIX) for one in objects(part) if isinstance(one.get("$ref"), str)
            }:
                users.get(target, []).append(name)
        finite: set[str] = set()
        waiting = list(definitions)
        while waiting:
            name = waiting.pop()
            if name not in finite and _finite(definitions[name], finite):
                finite.add(name)
                waiting += users[name]
        endless = [name for name in definitions if name not in finite]
        if endless:
            raise PositionError(positions[endless[0]], "must have itself as a part, so that no value ends")


def _is_fragment(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("#")


def _alternatives_of(schema: Schema | bool) -> Iterator[str]:
    """Names of the definitions that are alternatives of a prepared schema, or it as a whole."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(_PREFIX)
        for option in schema.get("anyOf", ()):
            yield from _alternatives_of(option)


def _finite(schema: Schema | bool, known: set[str]) -> bool:
    """Whether a prepared schema has a finite value, if the definitions `known` have."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return schema["$ref"].removeprefix(_PREFIX) in known
    if "anyOf" in schema:
        return any(_finite(option, known) for option in schema["anyOf"])
    if not all(_finite(schema.get("properties", {})[name], known) for name in schema.get("required", ())):
        return False
    head, least = schema.get("prefixItems", []), schema.get("minItems", 0)
    rest = [schema.get("items", True)] if least > len(head) else []
    return all(_finite(part, known) for part in [*head[:least], *rest])
