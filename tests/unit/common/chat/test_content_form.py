# SPDX-License-Identifier: Apache-2.0
"""Content of messages in the forms of chat templates, and what becomes of pictures in each."""

from pathlib import Path
from typing import Any

import pytest

from common.chat.content_form import ContentForm, fill_marks, find_form, fit_content, marked_text
from common.chat.parts import MediaPart
from common.tokenizer import ChatTokenizer

IMAGE, VIDEO = MediaPart("image"), MediaPart("video")
TEXT = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
# As Qwen2-VL's.
EITHER = (
    "{% for m in messages %}[{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% elif p.type == 'video' %}<video>{% elif 'text' in p %}{{ p.text }}{% endif %}"
    "{% endfor %}{% endif %}]{% endfor %}"
)
# As SmolVLM's, which reads a string as a list of letters.
PARTS = (
    "{% for m in messages %}[{% for p in m.content %}{% if p['type'] == 'text' %}{{ p['text'] }}"
    "{% elif p['type'] == 'image' %}<image>{% endif %}{% endfor %}]{% endfor %}"
)
# As LLaVA's: pictures first.
FIRST = (
    "{% for m in messages %}[{% for p in m.content | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %}]{% endfor %}"
)
# Text models that read parts, and leave out or refuse others.
TEXTS = EITHER.replace("<image>", "").replace("<video>", "")
STRICT = TEXTS.replace("{% if p.type == 'image' %}", "{% if p.type != 'text' %}{{ raise_exception('text only') }}")
BOTH = frozenset({"image", "video"})


@pytest.fixture(scope="module")
def tokenizer(qwen3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(qwen3_tokenizer_dir)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": marked_text(content)}


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (TEXT, ContentForm()),
        (EITHER, ContentForm(kinds=BOTH)),
        (PARTS, ContentForm(texts=False, kinds=frozenset({"image"}))),
        (FIRST, ContentForm(texts=False, kinds=frozenset({"image"}))),
        (TEXTS, ContentForm(kinds=frozenset())),
        (STRICT, ContentForm(kinds=frozenset())),
        ("{{ raise_exception('no') }}", ContentForm()),
        ("{{ messages | tojson }}", ContentForm()),
    ],
)
def test_a_templates_form_is_found_by_rendering(tokenizer: ChatTokenizer, template: str, form: ContentForm) -> None:
    def render(messages: list[dict[str, Any]]) -> str | None:
        try:
            return tokenizer._apply(template, messages)
        except Exception:
            return None

    assert find_form(render) == form


@pytest.mark.parametrize(
    ("template", "content", "prompt"),
    [
        (TEXT, ["Hi"], "[Hi]"),
        (PARTS, ["Hi"], "[Hi]"),
        (EITHER, ["a", IMAGE, "b", VIDEO], "[a<image>b<video>]"),
        # Texts in a row are parts of their own, as in vLLM; a template that takes text gets lines.
        (EITHER, ["a", "b", IMAGE], "[ab<image>]"),
        (TEXT, ["a", "b"], "[a\nb]"),
        (TEXT, ["a", IMAGE, "b", VIDEO, IMAGE], "[(image 1)\n(video 1)\n(image 2)\na\nb]"),
        (TEXT, [IMAGE], "[(image 1)]"),
        (FIRST, ["a", IMAGE, "b"], "[<image>ab]"),
        # What the template does not write as a part is text in its place.
        (PARTS, [IMAGE, "a", VIDEO], "[<image>a(video 1)]"),
        (TEXTS, ["a", IMAGE], "[a(image 1)]"),
        (STRICT, ["a", IMAGE], "[a(image 1)]"),
    ],
)
def test_pictures_are_where_the_template_puts_them(
    tokenizer: ChatTokenizer, template: str, content: list[Any], prompt: str
) -> None:
    rendered = tokenizer.render([user(*content)], template=template)
    assert fill_marks(rendered, lambda kind, number: f"({kind} {number})") == prompt


def test_only_content_changes() -> None:
    calls = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    thoughts = {"role": "assistant", "content": [{"type": "thinking", "thinking": "?"}]}
    messages = [{"role": "system", "content": "Hi"}, calls, thoughts]
    assert fit_content(messages, ContentForm(kinds=BOTH)) == messages
    system, without_text, unchanged = fit_content(messages, ContentForm(texts=False, kinds=BOTH))
    assert system == {"role": "system", "content": [{"type": "text", "text": "Hi"}]}
    assert without_text == {**calls, "content": [{"type": "text", "text": ""}]}
    assert unchanged is thoughts
