# SPDX-License-Identifier: Apache-2.0
"""The formats of JSON schemas that are enforced, as patterns; others are annotations, as JSON Schema says."""

from collections.abc import Mapping

_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
# Not limited to 63 characters, which would take half a second to compile.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}"
_HEX = r"[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    (
        rf"(?:{_HEX}:){{7}}{_HEX}",
        rf"(?:{_HEX}:){{6}}{_IPV4}",
        rf"::(?:ffff:)?{_IPV4}",
        *(rf"(?:{_HEX}:){{{n}}}(?::{_HEX}){{1,{7 - n}}}" for n in range(1, 7)),
        rf":(?::{_HEX}){{1,7}}",
        rf"(?:{_HEX}:){{1,7}}:",
        "::",
    )
)
_DATE_PARTS = r"(?:\d+D|\d+M(?:\d+D)?|\d+Y(?:\d+M(?:\d+D)?)?)"
_TIME_PARTS = r"T(?:\d+S|\d+M(?:\d+S)?|\d+H(?:\d+M(?:\d+S)?)?)"
_PERCENT = r"%[0-9A-Fa-f]{2}"
_PATH_CHAR = rf"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|{_PERCENT})"
_QUERY = rf"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|{_PERCENT})*)?(?:#(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|{_PERCENT})*)?"
_USER = rf"(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|{_PERCENT})*@)?"
_HOST = rf"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|{_PERCENT})*|\[(?:{_IPV6})\])(?::\d*)?"
_AUTHORITY = rf"//{_USER}{_HOST}(?:/{_PATH_CHAR}*)*"
_ROOTED = rf"/(?:{_PATH_CHAR}+(?:/{_PATH_CHAR}*)*)?"
_SEGMENTS = rf"{_PATH_CHAR}+(?:/{_PATH_CHAR}*)*"
_FIRST_CHAR = rf"(?:[A-Za-z0-9._~!$&'()*+,;=@-]|{_PERCENT})"
_POINTER = r"(?:/(?:[^/~]|~[01])*)*"
_VARIABLE = rf"(?:\w|{_PERCENT})(?:\.?(?:\w|{_PERCENT}))*(?::[1-9]\d{{0,3}}|\*)?"

FORMATS: Mapping[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": rf"^P(?:{_DATE_PARTS}(?:{_TIME_PARTS})?|{_TIME_PARTS}|\d+W)$",
    "email": rf"^{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL})*$",
    "ipv4": f"^{_IPV4}$",
    "ipv6": f"^(?:{_IPV6})$",
    "uuid": "^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "uri": rf"^[A-Za-z][A-Za-z0-9+.-]*:(?:{_AUTHORITY}|{_ROOTED}|{_SEGMENTS}|){_QUERY}$",
    "uri-reference": (
        rf"^(?:[A-Za-z][A-Za-z0-9+.-]*:(?:{_AUTHORITY}|{_ROOTED}|{_SEGMENTS}|)"
        rf"|{_AUTHORITY}|{_ROOTED}|{_FIRST_CHAR}+(?:/{_PATH_CHAR}*)*|){_QUERY}$"
    ),
    "uri-template": (
        r"^(?:[!#$&(-;=?-[\]_a-z~]|" + _PERCENT + r"|\{[+#./;?&=,!@|]?" + _VARIABLE + "(?:," + _VARIABLE + r")*\})*$"
    ),
    "json-pointer": f"^{_POINTER}$",
    "relative-json-pointer": f"^(?:0|[1-9][0-9]*)(?:#|{_POINTER})$",
}
