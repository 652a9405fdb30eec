# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from common.chat.template import is_text, load_template


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages }} 你好", encoding="utf-8")
    assert load_template(str(file)) == "{{ messages }} 你好"


@pytest.mark.parametrize(
    "text",
    ["{{ messages }}", "line\n", "{% for m in messages %}{% generation %}{% endgeneration %}{% break %}{% endfor %}"],
)
def test_the_text_itself(text: str) -> None:
    assert is_text(text)
    assert load_template(text) == text


def test_a_template_may_refuse_chats() -> None:
    for text in ("{{ raise_exception('never') }}", "{{ 1 // 0 }}", "{{ messages[7].content.x.y }}"):
        assert load_template(text) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read '.*own.jinja': No such file or directory"),
        (b"\xff", "cannot read '.*own.jinja': it is not UTF-8"),
        (b"a\n{% for m in %}", "'.*own.jinja' is not valid Jinja: line 2: "),
        (b"{{ 'a' | no_such_filter }}", "'.*own.jinja' is not valid Jinja: line 1: No filter named 'no_such_filter'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^chat template: {message}"):
        load_template(str(file))


def test_a_wrong_text_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="the text given is not valid Jinja: line 1"):
        load_template("{% if secret")
