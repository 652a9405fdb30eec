# SPDX-License-Identifier: Apache-2.0
"""Every curl line of docs/requests.md, run unchanged by the real curl and compared with the answer below it.

Only where a line goes to is changed: curl's own settings lead the documented ports to the running stack's, and the
documented places of pictures become those of the test's pictures.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from tests.support.agent_rules import Rule, call, seen
from tests.support.scripted import ALL_DOUBLES, ROOT
from tests.support.videos import still
from tests.support.waiting import MODEL, PATIENCE_S

CUT = "…"  # stands for any text, at least a character
_PARTS = re.compile(
    r"^## (?P<section>[^\n]+)$|^```(?P<kind>bash|json|text)\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MODEL = re.compile(r'"model": "([^"]+)"')

HELLO = "你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
# What the documented answers of the model `qwen3` are played by.
QWEN3: list[Rule] = [
    seen(f"{HELLO}<think>\n\n</think>", "我是通义千问。"),
    seen(HELLO, "<think>\n用户问我是谁。\n</think>\n\n你好！我是通义千问。"),
    seen("解一下这道题：\n(x + 3) = (8 - x)\nx = ?<|im_end|>", "x = 2.5"),
    seen("<tool_response>\n59.0\n</tool_response>", "The current temperature in Boston, MA is 59.0°F."),
    seen(
        "postcode of Boston, and what",
        "\n".join(call(name, location="Boston") for name in ("get_postcode", "get_current_weather")),
    ),
    seen("weather like in Boston today?", call("get_current_weather", location="Boston, MA", unit="fahrenheit")),
]


@dataclass(frozen=True, slots=True)
class Line:
    """A documented command and the answer below it: `json`, or `text` for events and metrics."""

    name: str
    command: str
    kind: str
    promised: str

    def __str__(self) -> str:
        return self.name

    @property
    def model(self) -> str:
        """The requested model, else that of `make serve`."""
        found = _MODEL.search(self.command)
        return found[1] if found else MODEL


def documented() -> list[Line]:
    """The curl lines, each with the block below it."""
    lines: list[Line] = []
    section, command = "", None
    for part in _PARTS.finditer((ROOT / "docs" / "requests.md").read_text(encoding="utf-8")):
        if part["section"]:
            section = part["section"]
        elif part["kind"] == "bash":
            assert command is None, f"nothing is promised under:\n{command}"
            command = part["block"]
        elif command is not None:
            name = f"{section} {sum(line.name.startswith(section) for line in lines) + 1}"
            lines.append(Line(name, command, part["kind"], part["block"]))
            command = None
    assert lines and command is None
    return lines


@pytest.fixture(scope="module")
def film(demo) -> None:
    """A video of one second that shows one of the pictures."""
    (demo.folder / "film.mp4").write_bytes(still(Image.open(demo.folder / "red-circle.png")))


@pytest.fixture
def served(request, line, tmp_path) -> dict[str, Any]:
    """Arguments of subprocess that lead a line to its stack, which is started if needed."""
    folder = tmp_path
    command = line.command
    if line.model == "demo-vlm":
        request.getfixturevalue("film")
        demo = request.getfixturevalue("demo")
        stack, folder = demo.stack, demo.folder
        command = command.replace("file:///srv/images", folder.as_uri())
        command = command.replace("https://example.com/images", demo.https)
    elif line.model == "qwen3":
        scripted = request.getfixturevalue("scripted_qwen3")
        scripted.play(*QWEN3)
        stack = scripted.stack
    else:
        if os.environ.get(ALL_DOUBLES):
            pytest.skip("what the default model itself answers")
        stack = request.getfixturevalue("stack")
    ports = {9997: stack.ports.frontend, 8000: stack.ports.http, 8002: stack.ports.metrics}
    settings = [f'connect-to = "127.0.0.1:{there}:127.0.0.1:{here}"' for there, here in ports.items()]
    settings += ["silent", "show-error", 'noproxy = "*"', f"max-time = {PATIENCE_S}", r'write-out = "\n%{http_code}"']
    (tmp_path / ".curlrc").write_text("\n".join(settings))
    return {"args": ["bash", "-euc", command], "cwd": folder, "env": os.environ | {"CURL_HOME": str(tmp_path)}}


@pytest.mark.parametrize("line", documented(), ids=str)
def test_a_documented_line(line, served):
    if shutil.which("curl") is None:
        pytest.fail("no curl: install the package of that name")
    done = subprocess.run(**served, capture_output=True, encoding="utf-8", timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    wanted_status = "400" if '"error"' in line.promised else "200"
    assert status == wanted_status, done.stdout
    if line.kind == "json":
        check(json.loads(line.promised), json.loads(body), "")
    elif line.promised.startswith("data: "):
        check_events(line.promised, body)
    else:
        missing = set(line.promised.splitlines()) - set(body.splitlines())
        assert not missing, body


def check(promised: Any, given: Any, where: str) -> None:
    """Check that the answer has everything that is documented; it may have more. Lists are compared from their start; [] is empty."""
    if isinstance(promised, dict):
        assert isinstance(given, dict), f"{where}: {given!r}"
        for name, value in promised.items():
            assert name in given, f"{where}.{name} is missing in {given!r}"
            check(value, given[name], f"{where}.{name}")
    elif isinstance(promised, list):
        assert isinstance(given, list) and len(given) >= len(promised), f"{where}: {given!r}"
        assert promised or not given, f"{where}: {given!r}"
        for index, value in enumerate(promised):
            check(value, given[index], f"{where}[{index}]")
    elif isinstance(promised, str) and CUT in promised:
        pattern = ".+".join(map(re.escape, promised.split(CUT)))
        assert isinstance(given, str) and re.fullmatch(pattern, given, re.DOTALL), f"{where}: {given!r}"
    else:
        assert given == promised, f"{where}: {given!r} is not {promised!r}"


def check_events(promised: str, body: str) -> None:
    """Check that the documented events come in their order, with others between them, and that the last one is the last."""
    given = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    wanted = [line.removeprefix("data: ") for line in promised.splitlines()]
    at = 0
    for event in wanted:
        while not fits(event, given[at : at + 1]):
            at += 1
            assert at < len(given), f"{event} did not come in its place in {given}"
    assert fits(wanted[-1], given[-1:]), given[-1]


def fits(promised: str, given: list[str]) -> bool:
    if not given or "[DONE]" in (promised, given[0]):
        return given == [promised]
    try:
        check(json.loads(promised), json.loads(given[0]), "")
    except AssertionError:
        return False
    return True
