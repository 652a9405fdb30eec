# SPDX-License-Identifier: Apache-2.0
"""Calls whose function is named in the markup, with arguments in JSON or as parameters with tags of their own."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from common.chat.text_arguments import TextArguments
from common.markers import MarkerScanner
from families.parsers.arguments import quoted
from families.parsers.content import ContentWriter
from families.parsers.events import Event, ToolArgumentsDelta, ToolCallStart, new_call_id
from families.parsers.json_structure import JsonStructure
from families.parsers.parameters import CDATA, CDATA_END, Parameters, ParameterValue

# Of the text between a tag and what must follow it; a longer one is no markup.
_LONGEST = 512
# Between a name and JSON arguments there may be the fence of a code block.
_BEFORE_JSON = re.compile(r"[\s`]*(?:json)?\s*")


@dataclass(frozen=True, slots=True)
class NamedCalls:
    """The markup of a format: `begin` header arguments `end`.

    header: matches the whole text between `begin` and the first of `header_ends`. Group `name` is the function; `id`,
    if there is one, the id that the family's template expects of the call in later turns.
    inner: markup that `header` reads.
    header_ends: of these, the texts that also belong to what follows are read again (`kept`).
    end: "" if a call ends with its JSON.
    opens, closes: tags around all calls of an answer. bare: a call may stand without them, as some models forget them.
    parameters: None if the arguments are JSON.
    """

    begin: str
    header_ends: tuple[str, ...]
    end: str
    header: re.Pattern[str] = re.compile(r"\s*(?P<name>[\w.-]+)\s*")
    inner: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    parameters: Parameters | None = None
    bare: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of the markup."""
        one = self.parameters
        keys = (one.begin, one.header_end, one.value_begin, one.end) if one else ()
        calls = (self.begin, *self.inner, *self.header_ends, self.end)
        return tuple(filter(None, (*calls, *self.opens, *self.closes, *keys)))

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts that calls begin with."""
        return (*self.opens, self.begin) if self.bare else self.opens or (self.begin,)

    def parser(self, text_arguments: TextArguments) -> "NamedCallsParser":
        """A parser of one answer."""
        return NamedCallsParser(self, text_arguments)


class NamedCallsParser:
    """Reads tool calls between text. Names are sent once they are whole; JSON and text arguments as they arrive.

    Markup without a function's name stays in the content. A call that has begun cannot be revoked: JSON that becomes
    invalid is passed on up to the call's end. A closing tag in a value is the value's end only if more markup follows.
    Text in a call that is no part of its arguments is content after the call: clients cannot go on with a call.
    """

    def __init__(self, form: NamedCalls, text_arguments: TextArguments) -> None:
        self._form = form
        self._text_arguments = text_arguments
        self._content = ContentWriter()
        self._scanner = MarkerScanner(*form.triggers)  # of the current step
        self._in_section = False
        self._step: Callable[[str, list[Event]], str] = self._outside
        self._held = ""
        self._stray = False  # there has been text since the last tag
        self._inner: list[str] = []  # text in the current call that is no part of it
        self._calls = 0
        self._ids: set[str] = set()
        self._name = ""
        self._json = JsonStructure()
        self._value: ParameterValue | None = None
        self._value_end = ""
        self._arguments = 0  # of the current call

    @property
    def holds_content(self) -> bool:
        """Whether there is content in the current call, which is written after it."""
        return any(map(str.strip, self._inner))

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            text = self._step(text, events)
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        rest = self._scanner.flush()
        if self._step in (self._opened, self._header):
            rest, self._held = self._held + rest, ""
            self._write_text(rest, events)
        elif self._step == self._before_json:
            head = self._held + rest
            self._send("" if "json".startswith(head.strip(" \t\r\n`")) else head, events)
        elif self._step == self._broken:
            self._send(rest, events)
        elif self._step == self._key:
            key = (self._held + rest).lstrip()
            if self._parameters.begin.endswith('"'):
                key, _, _ = key.partition('"')
            self._send(self._before_key() + quoted(key)[:-1] if key else "", events)
        elif self._step == self._after_value and self._value:
            self._send(self._value.finish(), events)
        elif self._step in (self._cdata, self._in_value) and self._value:
            self._send(self._value.feed(self._held + rest), events)
            self._send(self._value.cut(), events)
        elif self._step == self._outside:
            self._write_text(rest, events)
        self._write_inner(events)
        return events + self._content.flush()

    # Each step reads the beginning of the text and returns the rest.

    def _outside(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._write_text(clear, events)
        if tag == self._form.begin:
            self._begin_header(tag)
        elif tag in self._form.opens:
            self._held = tag
            self._go(self._opened)
        elif tag:  # The end of the section.
            self._in_section = False
            self._content.call()
            self._go(self._outside)
        return text[position:]

    def _opened(self, text: str, events: list[Event]) -> str:
        """After the opening tag of a section: the first call, or other text if it is none."""
        opening = next(tag for tag in sorted(self._form.opens, key=len, reverse=True) if self._held.startswith(tag))
        self._held += text
        begin = self._form.begin
        body = self._held[len(opening) :].lstrip()
        space = len(self._held) - len(opening) - len(body)
        if body.startswith(begin) and space <= _LONGEST:
            self._begin_header(self._held[: len(opening) + space + len(begin)])
            return body[len(begin) :]
        if begin.startswith(body) and space <= _LONGEST:
            return ""
        return self._not_a_call(opening, self._held[len(opening) :], events)

    def _begin_header(self, held: str) -> None:
        self._held = held
        self._go(self._header, *self._form.header_ends, self._form.begin)

    def _header(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._held += clear
        start = self._held.find(self._form.begin) + len(self._form.begin)
        fits = len(self._held) - start <= _LONGEST
        if not tag and fits:
            return ""
        if tag == self._form.begin and fits:
            # What came before it is no call.
            self._in_section = self._in_section or not self._held.startswith(tag)
            self._write_text(self._held, events)
            self._begin_header(tag)
            return text[position:]
        found = self._form.header.fullmatch(self._held, start) if tag and fits else None
        if found and self._may_call(found["name"]):
            self._begin_call(found.groupdict(), events)
            return (tag if tag in self._form.kept else "") + text[position:]
        first = next(tag for tag in (*self._form.opens, self._form.begin) if self._held.startswith(tag))
        rest = self._held[len(first) :] + (tag or self._scanner.flush())
        return self._not_a_call(first, rest, events) + text[position:]

    def _begin_call(self, header: dict[str, str | None], events: list[Event]) -> None:
        self._name = header["name"] or ""
        call_id = header.get("id")
        if not call_id or call_id in self._ids:
            call_id = new_call_id()
        self._ids.add(call_id)
        events.append(ToolCallStart(self._calls, call_id, self._name))
        self._calls += 1
        self._arguments, self._held, self._in_section = 0, "", True
        self._content.call()
        if self._form.parameters:
            self._go_between()
        else:
            self._go(self._before_json, "{", self._form.end)

    def _may_call(self, name: str) -> bool:
        """Whether a name can be a call's: without the section's tags only a function of the request, if it is known."""
        tagged = self._in_section or not self._form.bare or not self._held.startswith(self._form.begin)
        return tagged or not self._text_arguments or name in self._text_arguments

    def _not_a_call(self, tag: str, rest: str, events: list[Event]) -> str:
        """Take a tag for text, and read what follows it again."""
        self._held = ""
        self._write_text(tag, events)
        self._go(self._outside)
        return rest

    # Arguments in JSON.

    def _before_json(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._held += clear
        if not tag and len(self._held) <= _LONGEST:
            return ""
        head, self._held = self._held, ""
        start = self._after_header_ends(head)
        if tag == "{" and len(head) <= _LONGEST and start[:1] not in ("[", '"'):
            # What stands before an object is no part of it.
            self._hold("" if _BEFORE_JSON.fullmatch(start) else start)
        elif len(head) > _LONGEST or not _BEFORE_JSON.fullmatch(head):
            rest = head + (tag or self._scanner.flush())
            self._go(self._broken, self._form.end or self._form.begin)
            return rest + text[position:]
        if tag == self._form.end:
            self._send("{}", events)
            self._go(self._outside)
            return text[position:]
        self._json = JsonStructure()
        self._go(self._in_json)
        return tag + text[position:]

    def _after_header_ends(self, text: str) -> str:
        """The text without ends of a header at its beginning: models repeat them."""
        text = text.lstrip()
        while end := next((end for end in self._form.header_ends if text.startswith(end)), ""):
            text = text.removeprefix(end).lstrip()
        return text

    def _in_json(self, text: str, events: list[Event]) -> str:
        position = self._json.feed(text)
        self._send(text[:position], events)
        if self._json.complete:
            self._write_inner(events)
        if self._json.broken:
            self._go(self._broken, self._form.end or self._form.begin)
        elif self._json.complete and self._form.end:
            self._go(self._after_json, *self._ends)
        elif self._json.complete:
            self._go(self._outside)
        return text[position:]

    def _after_json(self, text: str, events: list[Event]) -> str:
        """Look for the end of a call whose arguments are complete; what comes instead is no part of them."""
        clear, tag, position = self._scanner.scan(text)
        self._write_text(self._without_markup(clear, " \t\r\n`}"), events)
        if not tag:
            return ""
        self._go(self._outside)
        return text[position:] if tag == self._form.end else tag + text[position:]

    def _broken(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._send(clear, events)
        if not tag:
            return ""
        self._write_inner(events)
        self._content.call()
        self._go(self._outside)
        return text[position:] if tag == self._form.end else tag + text[position:]

    # Arguments as parameters.

    def _go_between(self) -> None:
        self._go(self._between, *self._follow)

    def _between(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._hold(self._without_markup(clear))
        if not tag:
            return ""
        rest = text[position:]
        if tag == self._parameters.begin:
            self._go(self._key, self._parameters.header_end, *self._follow)
            return rest
        self._send("}" if self._arguments else "{}", events)
        self._write_inner(events)
        self._go(self._outside)
        return rest if tag == self._form.end else tag + rest

    def _key(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._held += clear
        markup = self._parameters
        fits = len(self._held) <= _LONGEST
        if not tag and fits:
            return ""
        header, self._held = self._held, ""
        whole = f"{markup.begin}{header}{tag}"
        if fits and whole.startswith(self._ends):  # A tag that begins as a parameter's.
            self._go(self._between, *self._ends)
            return whole + text[position:]
        ended = fits and tag == markup.header_end and not (header + tag).endswith(self._half_tags)
        found = markup.header.fullmatch(header) if ended else None
        if not found:  # It is no header.
            rest = header + (tag or self._scanner.flush())
            self._hold(markup.begin)
            self._go_between()
            return rest + text[position:]
        groups = found.groupdict()
        key, kind = groups["key"].rstrip(), groups.get("text")
        if markup.entities:
            key = html.unescape(key)
        known = self._text_arguments.get(self._name, frozenset())
        self._value = ParameterValue(markup, as_text=key in known if kind is None else kind in ("true", "string"))
        self._send(f"{self._before_key()}{quoted(key)}: ", events)
        self._arguments += 1
        if markup.value_begin:
            self._held = key
            self._go(self._before_value, markup.value_begin, *self._follow)
        else:
            self._begin_value(key)
        return text[position:]

    @property
    def _half_tags(self) -> tuple[str, ...]:
        """The beginnings of tags up to what would be the end of a header."""
        end = self._parameters.header_end
        halves = (tag[: tag.find(end) + len(end)] for tag in self._follow if end in tag)
        return tuple(half for half in halves if half not in self._follow)

    def _before_key(self) -> str:
        return ", " if self._arguments else "{"

    def _before_value(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        self._hold(self._without_markup(clear))
        if tag == self._parameters.value_begin:
            key, self._held = self._held, ""
            self._begin_value(key)
        elif tag:
            self._held, self._value = "", None
            self._send("null", events)
            self._go_between()
            return tag + text[position:]
        return text[position:]

    def _begin_value(self, key: str) -> None:
        self._value_end = self._parameters.end.replace("{key}", key)
        if self._parameters.cdata:
            self._held = ""
            self._go(self._cdata)
        else:
            self._go(self._in_value, self._value_end)

    def _cdata(self, text: str, events: list[Event]) -> str:
        """Decide by its beginning where a value ends: at the tag, or after the end of its section of character data."""
        self._held += text
        start = self._held.lstrip()
        if len(self._held) - len(start) <= _LONGEST:
            if len(start) < len(CDATA) and CDATA.startswith(start):
                return ""
            if start.startswith(CDATA):
                self._value_end = CDATA_END + self._value_end
        held, self._held = self._held, ""
        self._go(self._in_value, self._value_end)
        return held

    def _in_value(self, text: str, events: list[Event]) -> str:
        clear, tag, position = self._scanner.scan(text)
        if self._value is None:
            raise RuntimeError("a value without a key")
        self._send(self._value.feed(clear), events)
        if tag:
            self._held = tag
            self._step = self._after_value
        return text[position:]

    def _after_value(self, text: str, events: list[Event]) -> str:
        """Decide by what follows whether a closing tag is the value's end or part of it."""
        if self._value is None:
            raise RuntimeError("a value without a key")
        end = self._value_end
        self._held += text
        rest = self._held[len(end) :]
        body = rest.lstrip()
        near = len(rest) - len(body) <= _LONGEST
        if near and not body.startswith(self._follow) and any(tag.startswith(body) for tag in self._follow):
            return ""
        self._held = ""
        if not near or not body.startswith(self._follow):
            self._send(self._value.feed(end), events)
            self._step = self._in_value
            return rest
        self._send(self._value.finish(), events)
        self._value = None
        self._go_between()
        return body

    @property
    def _ends(self) -> tuple[str, ...]:
        """The tags after a call; the next call may begin before the end of this one, which is missing then."""
        return (self._form.end, *self._form.closes, self._form.begin, *self._form.opens)

    @property
    def _follow(self) -> tuple[str, ...]:
        """The tags that come after a parameter."""
        return (self._parameters.begin, *self._ends)

    @property
    def _parameters(self) -> Parameters:
        if self._form.parameters is None:
            raise RuntimeError("a format without parameters")
        return self._form.parameters

    def _go(self, step: Callable[[str, list[Event]], str], *tags: str) -> None:
        """Read on with a step that looks for tags, by default those outside calls."""
        self._step = step
        self._stray = False
        form = self._form
        outside = (*form.triggers, form.begin, *form.closes) if self._in_section else form.triggers
        self._scanner = MarkerScanner(*(filter(None, tags) if tags else outside))

    def _write_text(self, text: str, events: list[Event]) -> None:
        if text:
            events += self._content.text(text)

    def _hold(self, text: str) -> None:
        if text:
            self._inner.append(text)

    def _write_inner(self, events: list[Event]) -> None:
        """Write the text that the current call holds."""
        text = "".join(self._inner)
        self._inner.clear()
        if text:
            self._write_text(text, events)
            self._content.call()

    def _without_markup(self, text: str, skipped: str | None = None) -> str:
        """Text between two tags without what belongs to the markup at its beginning, by default whitespace."""
        text = text if self._stray else text.lstrip(skipped)
        self._stray = self._stray or bool(text)
        return text

    def _send(self, arguments: str, events: list[Event]) -> None:
        if arguments:
            events.append(ToolArgumentsDelta(self._calls - 1, arguments))
