# SPDX-License-Identifier: Apache-2.0
"""The chat page in headless Chromium, before a server that answers what a test tells it.

tests/integration/test_chat_page_served.py has the page before a whole stack.
"""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, Route, expect

from tests.fakes.chat_server import ChatServer, Reply, chat_page, chat_server
from tests.support.agents import NODE_PACKAGES
from tests.support.chat_page import (
    DESKTOP,
    PHONE,
    attach,
    chromium,
    hand_over,
    idle,
    open_tab,
    picture,
    say,
    settings,
    tab,
)
from tests.support.demo_stack import draw_all
from tests.support.videos import video
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "chat_page" / "static" / "vendor"
SEES = [
    {"id": "qwen3-vl", "kind": "chat", "modalities": ["text", "image", "video"]},
    {"id": "smollm2", "kind": "chat", "modalities": ["text"]},
    {"id": "embedder", "kind": "embedding"},
]
LONG = "".join(f"Line {number} of a long answer.\n\n" for number in range(60))
MARKUP = r"""## Midnight sun

The sun stays up **all night**, from \(19\) May to $26$ July. A ticket costs $5 or $10, <b>bold</b> as <script>alert(1)</script>.

\[ \cos\omega = -\tan\varphi \, \tan\delta \]

$$
\int_0^1 x^2\,dx = \frac{1}{3}
$$

```python
def polar_day(latitude: float) -> bool:
    # Beyond the polar circle
    return abs(latitude) > 66.56
```

| Place | Latitude | Administration | Incomprehensibilities |
|:--|--:|:-:|---|
| Nordkapp | 71.17 | Finnmark | Counterrevolutionaries |

- a bullet

1. a number

- [x] [a link](https://example.com/a) and ![a picture](https://example.com/p.png)

<img src="https://example.com/q.png" onerror="alert(1)"> [never](javascript:alert(1))
"""

# All that the browser keeps of chats, as JSON.
KEPT = """() => new Promise(resolve => {
    indexedDB.open("triton-chat").onsuccess = ({target: {result: database}}) => {
        database.transaction("chats").objectStore("chats").getAll().onsuccess = ({target}) => {
            database.close();
            resolve(JSON.stringify(target.result));
        };
    };
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ChatServer, str]]:
    with chat_server() as fake, chat_page(f"{fake.url}/v1") as url:
        yield fake, url


@pytest.fixture
def server(running: tuple[ChatServer, str]) -> ChatServer:
    fake, _ = running
    fake.models, fake.key = SEES, ""
    fake.play()
    return fake


@pytest.fixture
def url(running: tuple[ChatServer, str]) -> str:
    return running[1]


@pytest.fixture
def page(browser: Browser, server: ChatServer, url: str) -> Iterator[Page]:
    with tab(browser, url) as opened:
        expect(opened.locator("#model")).to_have_value("qwen3-vl")
        yield opened


def test_the_models_and_examples_of_an_empty_chat(server: ChatServer, page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Triton Chat")
    expect(page.locator("#model option")).to_have_text(["qwen3-vl", "smollm2"])
    expect(page.locator(".empty")).to_contain_text("It reads text, pictures, and videos.")
    page.locator("#model").select_option("smollm2")
    expect(page.locator(".empty")).to_contain_text("It reads text.")
    server.play("It pulls.")
    page.get_by_role("button", name="What is gravity?").click()
    expect(page.locator(".answer")).to_have_text("It pulls.")
    assert server.asked["model"] == "smollm2"
    assert server.asked["messages"] == [{"role": "user", "content": "What is gravity?"}]
    assert set(server.asked) == {"model", "messages", "stream", "stream_options"}
    # The choice is kept, and a model that came meanwhile is found.
    server.models = [*SEES, {"id": "newcomer"}]
    page.reload()
    expect(page.locator("#model")).to_have_value("smollm2")
    expect(page.locator("#model option")).to_have_count(3)


def test_a_start_before_the_server(browser: Browser, server: ChatServer) -> None:
    """The page finds the models as soon as there are any, without a reload."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with chat_page(f"http://127.0.0.1:{port}/v1") as url, tab(browser, url) as page:
        expect(page.get_by_role("alert")).to_contain_text(
            f"The server at http://127.0.0.1:{port}/v1 cannot be reached."
        )
        say(page, "Anybody?")
        expect(page.locator("article .error")).to_contain_text("cannot be reached")
        with chat_server(port) as late:
            late.play("Here I am.")
            expect(page.locator("#model")).to_have_value("alpha")
            expect(page.get_by_role("alert").filter(has_text="Trying again")).to_have_count(0)
            page.get_by_role("button", name="Retry").click()
            expect(page.locator(".answer")).to_have_text("Here I am.")


def test_a_question_before_the_models_are_known_waits_for_them(server: ChatServer, page: Page) -> None:
    server.play("I am here.")
    held: list[Route] = []
    page.route("**/page.json", lambda route: held.append(route))
    page.reload()
    say(page, "Anybody?")
    expect(page.locator("article.assistant")).to_contain_text("Waiting")
    # What is held goes on, too.
    page.unroute("**/page.json")
    expect(page.locator(".answer")).to_have_text("I am here.")


def test_a_key_is_asked_for_and_kept_as_the_visitor_wants(server: ChatServer, url: str, browser: Browser) -> None:
    server.key = "sk-right"
    with tab(browser, url) as page:
        key = page.locator("#key")
        expect(key).to_be_focused()
        expect(page.locator("dialog")).to_contain_text("The server requires a valid API key.")
        key.fill("sk-wrong")
        page.keyboard.press("Enter")
        # Opened again: the key was tried.
        expect(page.locator("dialog[open]")).to_be_visible()
        key.fill("sk-right")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_value("qwen3-vl")
        server.play("Come in.", Reply(status=429, error="It is full"))
        say(page, "May I?")
        expect(page.locator(".answer")).to_have_text("Come in.")
        page.reload()
        expect(page.locator("#model")).to_have_value("qwen3-vl")
        # Not in other tabs, until it is to be kept.
        other = open_tab(page.context, url)
        expect(other.locator("#key")).to_be_focused()
        page.get_by_label("Settings", exact=True).first.click()
        page.get_by_label("Keep the key").check()
        page.keyboard.press("Escape")
        other = open_tab(page.context, url)
        expect(other.locator("#model")).to_have_value("qwen3-vl")
        # A key that is withdrawn while the page is open.
        server.key = "sk-new"
        say(page, "And now?")
        expect(page.locator("article .error")).to_contain_text("requires a valid API key")
        page.locator("article .error").get_by_role("button", name="Enter a key").click()
        expect(page.locator("#key")).to_be_focused()


def test_text_typed_while_an_answer_grows_stays(server: ChatServer, page: Page) -> None:
    server.play(Reply(("Once ",), held=("upon a time.",)), "The end.")
    say(page, "Tell me a story.")
    expect(page.locator(".answer")).to_have_text("Once")
    page.locator("#question").fill("And then?")
    page.locator("#question").press("Enter")
    server.resume.set()
    idle(page)
    expect(page.locator(".answer")).to_have_text("Once upon a time.")
    expect(page.locator("#question")).to_have_value("And then?")
    expect(page.locator("article.user")).to_have_count(1)
    page.reload()
    expect(page.locator("#question")).to_have_value("And then?")
    expect(page.locator("#model")).to_have_value("qwen3-vl")
    page.locator("#question").press("Enter")
    expect(page.locator(".answer").last).to_have_text("The end.")
    expect(page.locator("#question")).to_have_value("")


def test_scrolling(server: ChatServer, page: Page) -> None:
    """The end is followed until the visitor scrolls up, and again from the next question on."""
    server.play(Reply((LONG,), held=("The end of it.\n\n", LONG)), "Short.")
    top = "document.getElementById('scroller').scrollTop"
    left = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)(document.getElementById('scroller'))"
    say(page, "Tell me a long story.")
    expect(page.get_by_text("Line 59 of")).to_be_in_viewport()
    expect(page.get_by_label("Go to the end")).to_be_hidden()
    page.evaluate(f"{top} -= 400")
    expect(page.get_by_label("Go to the end")).to_be_visible()
    before = page.evaluate(top)
    server.resume.set()
    idle(page)
    assert page.evaluate(top) == before
    page.get_by_label("Go to the end").click()
    wait_until(lambda: page.evaluate(left) < 8, "the end is shown")
    page.evaluate(f"{top} -= 900")
    expect(page.get_by_label("Go to the end")).to_be_visible()
    say(page, "And a short one.")
    expect(page.get_by_text("Short.")).to_be_in_viewport()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_markdown_formulas_code_and_tables(server: ChatServer, url: str, browser: Browser, size: Any) -> None:
    server.play(MARKUP)
    with tab(browser, url, viewport=size) as page:
        say(page, "When is the midnight sun?")
        idle(page)
        answer = page.locator(".answer")
        expect(answer.locator("math")).to_have_count(4)
        expect(answer.locator("math[display=block]")).to_have_count(2)
        expect(answer).to_contain_text("A ticket costs $5 or $10, bold as <script>alert(1)</script>.")
        expect(answer.locator("h3")).to_have_text("Midnight sun")
        for text, marker in (("a bullet", "disc"), ("a number", "decimal"), ("a link", "none")):
            expect(answer.locator("li", has_text=text)).to_have_css("list-style-type", marker)
        expect(answer.locator(".code-bar")).to_contain_text("python")
        expect(answer.locator(".hljs-keyword").first).to_have_text("def")
        # No markup of an answer becomes part of the page; its addresses are links, and no scripts.
        assert answer.locator("script, img").count() == 0
        assert {one.get_attribute("href") for one in answer.locator("a").all()} == {
            "https://example.com/a",
            "https://example.com/p.png",
            None,
        }
        assert all(one.get_attribute("rel") == "noopener noreferrer" for one in answer.locator("a[href]").all())
        # Words of a table stay whole: it is scrolled, and not the page.
        heights = answer.locator("th").evaluate_all("cells => cells.map(one => one.clientHeight)")
        assert max(heights) < 50, heights
        scrolled = answer.locator(".table").evaluate("one => one.scrollWidth > one.clientWidth")
        assert scrolled == (size is PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        assert answer.evaluate("one => one.getBoundingClientRect().width") <= 48 * 16
        assert fonts(page, ".answer strong") == fonts(page, ".answer p")


def fonts(page: Page, place: str) -> str:
    """The typeface of an element's own text."""
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    node = session.send("DOM.querySelector", {"nodeId": root, "selector": place})["nodeId"]
    used = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
    return str(max(used, key=lambda one: one["glyphCount"])["familyName"])


def test_copying_code_and_answers(server: ChatServer, url: str, browser: Browser) -> None:
    server.play(MARKUP)
    with tab(browser, url, permissions=["clipboard-read", "clipboard-write"]) as page:
        say(page, "Code, please.")
        idle(page)
        page.locator(".code-bar button").click()
        expect(page.locator(".code-bar button")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith("def polar_day(latitude: float)")
        page.locator(".assistant footer").get_by_role("button", name="Copy").click()
        clipboard = "navigator.clipboard.readText()"
        wait_until(lambda: page.evaluate(clipboard).startswith("## Midnight"), "the answer is on the clipboard")


@pytest.mark.parametrize("way", ["Escape", "button"])
def test_stopping(server: ChatServer, page: Page, way: str) -> None:
    """The server's stream ends, what came stays, and a question without any answer is not sent again."""
    begun, dropped = server.begun, server.dropped
    server.play(Reply(("Once upon",), held=("never",)), Reply((), held=("never",)), "It goes on.")
    for number, (said, shown) in enumerate((("Tell me a story.", "Once upon"), ("Are you there?", "Waiting")), 1):
        say(page, said)
        expect(page.locator("article").last).to_contain_text(shown)
        # "Waiting" is shown before the server has the question.
        wait_until(lambda number=number: server.begun == begun + number, "the server's stream begins")
        if way == "Escape":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("button", name="Stop").click()
        idle(page)
        expect(page.locator("article.assistant").last).to_contain_text("Stopped.")
    wait_until(lambda: server.dropped == dropped + 2, "the server's streams end")
    say(page, "Go on.")
    expect(page.locator(".answer").last).to_have_text("It goes on.")
    assert [one["content"] for one in server.asked["messages"]] == ["Tell me a story.", "Once upon", "Go on."]


def test_regenerate_edit_and_undo(server: ChatServer, page: Page) -> None:
    server.play("One.", "Two.", "Three.", "Four.")
    say(page, "A number, please.")
    expect(page.locator(".answer")).to_have_text("One.")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".answer")).to_have_text("Two.")
    assert len(server.asked["messages"]) == 1
    say(page, "Another.")
    expect(page.locator(".answer")).to_have_text(["Two.", "Three."])
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".answer")).to_have_text(["Two."])
    expect(page.locator("#question")).to_have_value("Another.")
    # What is in the box stays, whatever is undone or edited.
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("New text").fill("A bigger number.")
    page.keyboard.press("Escape")
    expect(page.locator("article.user")).to_contain_text("A number, please.")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("New text").fill("A bigger number.")
    page.locator(".edit").get_by_role("button", name="Send").click()
    expect(page.locator(".answer")).to_have_text(["Four."])
    assert server.asked["messages"] == [{"role": "user", "content": "A bigger number."}]
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".empty")).to_be_visible()
    expect(page.locator("#question")).to_have_value("Another.")
    expect(page.locator("aside li")).to_have_count(0)


def test_several_chats(server: ChatServer, page: Page, tmp_path: Path) -> None:
    """They survive a reload, go on in the background, and are searched, renamed, exported, deleted and imported."""
    draw_all(tmp_path)
    server.play("A red circle.", Reply(("Once ",), held=("upon a time.",)))
    attach(page, "choose", tmp_path / "red-circle.png")
    say(page, "What is this?")
    expect(page.locator(".answer")).to_have_text("A red circle.")
    page.get_by_role("button", name="New chat").first.click()
    say(page, "Tell me a story.")
    expect(page.locator(".answer")).to_have_text("Once")
    expect(page.locator("aside a")).to_have_text(["Tell me a story.", "What is this?"])
    page.get_by_role("link", name="What is this?").click()
    expect(page.locator(".answer")).to_have_text("A red circle.")
    server.resume.set()
    expect(page.locator("aside .dot")).to_have_count(0)
    page.go_back()
    expect(page.locator(".answer")).to_have_text("Once upon a time.")
    page.reload()
    expect(page.locator(".answer")).to_have_text("Once upon a time.")

    page.get_by_label("Search the chats").fill("red CIRCLE")
    expect(page.locator("aside a")).to_have_text(["What is this?"])
    page.once("dialog", lambda dialog: dialog.accept("Shapes"))
    page.locator("aside li").hover()
    page.get_by_role("button", name="Rename What is this?").click()
    expect(page.locator("aside a")).to_have_text(["Shapes"])
    page.get_by_label("Search the chats").fill("")

    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "chats.json")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Settings", exact=True).first.click()
    page.get_by_role("button", name="Delete all chats").click()
    expect(page.locator("aside li")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator(".empty")).to_be_visible()

    # Another tab of the same browser sees what this one does.
    other = open_tab(page.context, page.url)
    expect(other.locator("#model")).to_have_value("qwen3-vl")
    page.locator("#import").set_input_files(tmp_path / "chats.json")
    for one in (page, other):
        expect(one.locator("aside a")).to_have_text(["Tell me a story.", "Shapes"])
    other.get_by_role("link", name="Shapes").click()
    expect(other.locator("article img")).to_have_js_property("complete", True)
    assert other.locator("article img").evaluate("one => one.naturalWidth") > 0
    # A chat that went on since the export is not overwritten.
    server.play("Quite sure.")
    say(other, "Really?")
    expect(other.locator(".answer").last).to_have_text("Quite sure.")
    expect(page.locator("aside a")).to_have_text(["Shapes", "Tell me a story."])
    page.locator("#import").set_input_files(tmp_path / "chats.json")
    expect(page.locator(".notice")).to_contain_text("Imported: 0 of 2 chats")
    page.get_by_role("link", name="Shapes").click()
    expect(page.locator(".answer").last).to_have_text("Quite sure.")
    (tmp_path / "other.json").write_text('{"no": "chats"}')
    page.locator("#import").set_input_files(tmp_path / "other.json")
    expect(page.locator(".notice")).to_have_text("This file is no export of chats.")


def test_an_answer_that_a_reload_cuts_off_says_so(server: ChatServer, page: Page) -> None:
    dropped = server.dropped
    server.play(Reply(("Once upon",), held=("never",)), "A whole one.")
    say(page, "Tell me a story.")
    expect(page.locator(".answer")).to_have_text("Once upon")
    wait_until(lambda: "Once upon" in page.evaluate(KEPT), "the browser keeps what came")
    page.reload()
    expect(page.locator("article.assistant")).to_contain_text("Not complete")
    expect(page.locator(".answer")).to_have_text("Once upon")
    wait_until(lambda: server.dropped == dropped + 1, "the server's stream ends")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".answer")).to_have_text("A whole one.")


def test_reasoning_and_figures(server: ChatServer, page: Page) -> None:
    thought = ({"reasoning_content": "Norway is "}, {"reasoning_content": "far **north**."})
    server.play(Reply(thought, held=("It stays up ", "all night.")))
    say(page, "When is the midnight sun?")
    reasoning = page.locator(".reasoning")
    expect(reasoning.locator("strong")).to_be_visible()
    expect(reasoning.locator("summary")).to_contain_text("Thinking…")
    server.resume.set()
    idle(page)
    expect(reasoning.locator("summary")).to_have_text(re.compile(r"Thought for (under 0\.1|\d+(\.\d)?) s"))
    expect(reasoning.locator("strong")).to_be_hidden()
    reasoning.locator("summary").click()
    expect(reasoning.locator("strong")).to_be_visible()
    figures = r"qwen3-vl · 4 tokens · \d+\.\d tokens/s · first after \d+\.\d\d s · prompt 7 tokens"
    expect(page.locator(".figures")).to_have_text(re.compile(figures))
    # Reasoning is no part of what is sent.
    server.play("In summer.")
    say(page, "When again?")
    idle(page)
    assert server.asked["messages"][1] == {"role": "assistant", "content": "It stays up all night."}


def test_errors_are_beside_the_message_with_a_retry(server: ChatServer, page: Page) -> None:
    server.play(Reply(status=503, error="It is <full>"), Reply(("This far",), error="the engine died"))
    say(page, "Hello?")
    error = page.locator("article .error")
    expect(error).to_contain_text("The server refused this (503): It is <full>.")
    expect(page.locator(".answer")).to_be_empty()
    error.get_by_role("button", name="Retry").click()
    expect(error).to_contain_text("The answer broke off: the engine died.")
    expect(page.locator(".answer")).to_have_text("This far")
    server.play(Reply(("So far",), breaks=True), Reply(("Cut",), finish="length"))
    error.get_by_role("button", name="Retry").click()
    expect(error).to_contain_text("the connection to the server was lost")
    # What came belongs to the conversation; what failed before its first word does not.
    say(page, "Go on.")
    expect(page.locator(".note")).to_contain_text("the most tokens")
    assert [one["content"] for one in server.asked["messages"]] == ["Hello?", "So far", "Go on."]


def test_tool_calls_and_their_results(server: ChatServer, page: Page) -> None:
    weather = {"name": "get_weather", "description": "The weather of a city", "parameters": {"type": "object"}}
    calls = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": ' "Tromsø"}'}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
    ]
    server.play(Reply(("I shall look.", *({"tool_calls": [one]} for one in calls))), "It is minus 3 degrees.")
    settings(page, tools=json.dumps([weather, {"type": "function", "function": {"name": "get_time"}}]))
    say(page, "How cold is it in Tromsø?")
    expect(page.get_by_text("Tool call: get_weather")).to_be_visible()
    expect(page.locator("article pre").first).to_contain_text('"city": "Tromsø"')
    assert [one["function"]["name"] for one in server.asked["tools"]] == ["get_weather", "get_time"]
    expect(page.get_by_label("The result of get_weather")).to_be_visible()
    say(page, "minus 3")
    expect(page.get_by_label("The result of get_time")).to_be_visible()
    say(page, "noon")
    expect(page.locator(".answer").last).to_have_text("It is minus 3 degrees.")
    arguments = {"name": "get_weather", "arguments": '{"city": "Tromsø"}'}
    asked, *results = server.asked["messages"][1:]
    assert asked["content"] == "I shall look."
    assert asked["tool_calls"][0] == {"id": "a", "type": "function", "function": arguments}
    assert results == [
        {"role": "tool", "tool_call_id": "a", "content": "minus 3"},
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
    ]
    page.locator("#scroller").evaluate("one => one.scrollTo(0, 0)")
    picture(page, "chat-tools")


def test_settings_are_sent_and_kept(server: ChatServer, page: Page) -> None:
    server.play("Yes.", "Yes.")
    values = {"system": "Be brief.", "temperature": "0.5", "top_p": "0", "max_tokens": "7", "seed": "-1"}
    settings(page, **values, thinking="off", theme="dark")
    page.reload()
    expect(page.locator("#model")).to_have_value("qwen3-vl")
    say(page, "Are they kept?")
    expect(page.locator(".answer")).to_have_text("Yes.")
    sent = {name: server.asked[name] for name in ("temperature", "top_p", "max_tokens", "seed", "enable_thinking")}
    assert sent == {"temperature": 0.5, "top_p": 0, "max_tokens": 7, "seed": -1, "enable_thinking": False}
    assert server.asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 29)"
    page.get_by_label("Settings", exact=True).first.click()
    assert page.locator("#temperature").input_value() == "0.5"
    for wrong, words in (("{", "are no JSON"), ("[1]", "must be a JSON list")):
        page.locator("#tools").fill(wrong)
        page.get_by_role("button", name="Done").click()
        expect(page.locator("dialog .wrong")).to_contain_text(words)
    page.keyboard.press("Escape")
    say(page, "With such tools?")
    expect(page.locator("article .error")).to_contain_text("The tools in the settings must be")


def test_pictures_and_videos(server: ChatServer, page: Page, tmp_path: Path) -> None:
    """Chosen, dropped anywhere or pasted; the model says what it takes."""
    draw_all(tmp_path)
    (tmp_path / "film.mp4").write_bytes(video())
    (tmp_path / "film.mkv").write_bytes(video())
    (tmp_path / "notes.txt").write_text("no picture")
    attach(page, "choose", tmp_path / "red-circle.png")
    page.evaluate("document.querySelector('aside').dispatchEvent(new Event('dragleave', {bubbles: true}))")
    hand_over(page, "dragover", tmp_path / "word.png", "aside")
    expect(page.locator(".drop")).to_be_visible()
    attach(page, "drop", tmp_path / "word.png", "aside")
    expect(page.locator(".drop")).to_be_hidden()
    attach(page, "paste", tmp_path / "film.mp4")
    attach(page, "drop", tmp_path / "film.mkv", "header")
    attach(page, "paste", tmp_path / "left-right.png")
    page.get_by_role("button", name="Remove left-right.png").click()
    expect(page.locator(".attached li")).to_have_count(4)
    server.play("A circle, a word and two films.", "No.")
    say(page, "What do you see?")
    expect(page.locator(".answer")).to_have_text("A circle, a word and two films.")
    *files, text = server.asked["messages"][0]["content"]
    assert text == {"type": "text", "text": "What do you see?"}
    urls = [(one["type"], one[one["type"]]["url"].partition(",")[0]) for one in files]
    assert urls == [
        ("image_url", "data:image/png;base64"),
        ("image_url", "data:image/png;base64"),
        ("video_url", "data:video/mp4;base64"),
        ("video_url", "data:video/x-matroska;base64"),
    ]
    # Shown for real, also after a reload: what the page may not load has no width.
    for _ in range(2):
        wait_until(lambda: shown(page, "img", "naturalWidth") == 2, "the img is shown")
        wait_until(lambda: shown(page, "video", "videoWidth") > 0, "the video is shown")
        page.reload()
    page.locator("#scroller").evaluate("one => one.scrollTo(0, 0)")
    picture(page, "chat-pictures")

    hand_over(page, "drop", tmp_path / "notes.txt")
    expect(page.locator(".notice")).to_have_text("notes.txt is not a picture or video.")
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(23 * 2**20 + 1)
    hand_over(page, "choose", tmp_path / "large.png")
    expect(page.locator(".notice")).to_have_text("large.png is larger than 23 MiB, the most that one request can hold.")
    page.locator("#model").select_option("smollm2")
    hand_over(page, "paste", tmp_path / "word.png")
    expect(page.locator(".notice")).to_have_text("word.png cannot be sent: smollm2 reads text only.")
    expect(page.locator(".attach")).to_be_disabled()


def shown(page: Page, kind: str, width: str) -> int:
    """The number of pictures or videos of the chat that are shown for real."""
    return int(page.locator(f"article {kind}").evaluate_all(f"all => all.filter(one => one.{width}).length"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_is_accessible_and_looks_so(server: ChatServer, url: str, browser: Browser, size: Any, scheme: Any) -> None:
    """axe-core finds nothing, contrast included, in any state of the page; Tab goes from the top to the bottom."""
    thought = {"reasoning_content": "Norway is far **north**, and it is summer."}
    server.play(Reply((thought, MARKUP)), Reply(status=503, error="The queue is full"))
    with tab(browser, url, viewport=size, color_scheme=scheme) as page:
        expect(page.locator("#model")).to_have_value("qwen3-vl")
        page.evaluate(AXE_SCRIPT)
        check_accessibility(page)
        name = f"{'phone' if size is PHONE else 'desktop'}-{scheme}"
        if size is DESKTOP:
            check_tab_order(page)
        say(page, "When is the midnight sun?")
        idle(page)
        page.locator(".reasoning summary").click()
        page.locator("#scroller").evaluate("one => one.scrollTo(0, 0)")
        expect(page.get_by_label("Go to the end")).to_be_visible()
        check_accessibility(page)
        picture(page, f"chat-{name}")
        say(page, "And the polar night?")
        expect(page.locator("article .error")).to_be_visible()
        check_accessibility(page)
        if size is PHONE:
            page.get_by_label("Show the chats").click()
            check_accessibility(page)
            page.keyboard.press("Escape")
            expect(page.locator("aside")).to_be_hidden()
        page.get_by_label("Settings", exact=True).first.click()
        check_accessibility(page)
        if name == "desktop-light":
            picture(page, "chat-settings")


def check_accessibility(page: Page) -> None:
    # Which headings an answer has is the model's.
    found = page.evaluate("axe.run({rules: {'heading-order': {enabled: false}}})")["violations"]
    assert not [(one["id"], [(node["html"], node["failureSummary"]) for node in one["nodes"]]) for one in found]


def check_tab_order(page: Page) -> None:
    """Tab meets every control once, in the order of the page, and none of the closed settings."""
    page.evaluate("document.querySelector('aside button').focus()")
    controls = ["New chat"]
    while controls[-1] != "Send":
        page.keyboard.press("Tab")
        controls.append(page.evaluate("(one => one.ariaLabel ?? one.textContent.trim())(document.activeElement)"))
    assert controls == [
        *(
            "New chat",
            "Search the chats",
            "Import",
            "Hide the chats",
            "Model",
            "New chat",
            "Settings",
            "What is gravity?",
        ),
        *("Write a short poem about the sea.", "Write a Python function that tests for primes."),
        *("What is in this picture? …", "Message", "Attach pictures or videos", "Send"),
    ]


def test_the_libraries_are_those_of_the_lock_file() -> None:
    """The page's libraries are files of npm packages, unchanged and with their licences."""
    packages = {"highlight": "@highlightjs/cdn-assets"}
    moved = {"highlight.min.js": "es/highlight.min.js"}
    moved |= {"marked.esm.js": "lib/marked.esm.js", "purify.min.js": "dist/purify.min.js"}
    moved |= {name: f"dist/{name}" for name in ("temml.min.js", "Temml.woff2", "Temml-Local.css")}
    if not NODE_PACKAGES.is_dir():
        pytest.fail(f"no {NODE_PACKAGES}: run `make setup-node`")
    for folder in VENDOR.iterdir():
        assert (folder / "LICENSE").is_file()
        for path in (one for one in folder.rglob("*") if one.is_file()):
            inside = path.relative_to(folder).as_posix()
            original = NODE_PACKAGES / packages.get(folder.name, folder.name) / moved.get(inside, inside)
            assert path.read_bytes() == original.read_bytes(), f"{path} is not {original}: copy it"
