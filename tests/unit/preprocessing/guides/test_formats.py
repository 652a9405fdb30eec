# SPDX-License-Identifier: Apache-2.0
"""The formats of JSON schemas: texts of them are allowed, others are not."""

import json

import pytest

from preprocessing.guides.formats import FORMATS
from preprocessing.guides.patterns import Pattern

xgrammar = pytest.importorskip("xgrammar")
testing = pytest.importorskip("xgrammar.testing")

TEXTS = {
    "date": (["2024-02-29", "1999-12-31", "2000-02-29"], ["2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01", "24-1-1"]),
    "time": (["10:00:00Z", "23:59:59.123+01:00"], ["24:00:00Z", "10:00:00", "10:60:00Z", "1:00:00Z"]),
    "date-time": (["2024-01-31T10:00:00Z", "2024-01-31T10:00:00.5-08:00"], ["2024-01-31", "2024-02-30T10:00:00Z"]),
    "duration": (["P1DT2H", "P2W", "PT0S", "P1Y2M3D"], ["P", "1D", "PT", "P1H", "P1D2W"]),
    "email": (["a.b+c@example.com", "a@localhost"], ["a", "a@", "@a", "a..b@c", "a@b..c", "a b@c", "a@-b"]),
    "hostname": (["example.com", "a-b.c", "EXAMPLE"], ["-a", "a-", "a..b", "", "a_b"]),
    "ipv4": (["192.168.0.1", "0.0.0.0", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5"]),
    "ipv6": (["::1", "2001:db8::ff00:42:8329", "1:2:3:4:5:6:7:8", "::", "::ffff:1.2.3.4"], ["1::2::3", "12345::", ":1", "g::"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456"]),
    "uri": (
        ["https://example.com:80/a/b?c=d#e", "mailto:a@b.c", "http://[::1]/", "urn:isbn:1", "h2+x://y"],
        ["//example.com", "a b", "http://a b", "http://x:y/z", "1a:b", "http://a/%zz"],
    ),
    "uri-reference": (["/a/b", "a", "//host/x", "#f", "", "http://x"], ["a b", "\\a", "1:b", "//a@b@c/"]),
    "uri-template": (["http://x/{a}/{b,c}", "{+a:3}{?b*}", ""], ["{", "}", "{a", "a b", "{a:0}"]),
    "json-pointer": (["", "/a/b~1c~0", "/"], ["a", "/~", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "2#"], ["", "/a", "01", "-1", "0##"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_format(name: str) -> None:
    pattern = Pattern(FORMATS[name])
    grammar = xgrammar.Grammar.from_json_schema(json.dumps({"type": "string", "pattern": pattern.rewritten()}))
    good, bad = TEXTS[name]
    for text in (*good, *bad):
        assert testing._is_grammar_accept_string(grammar, json.dumps(text)) is (text in good), text
        assert pattern.matches(text) is (text in good), text


def test_every_format_is_here() -> None:
    assert TEXTS.keys() == FORMATS.keys()
