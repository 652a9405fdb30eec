# SPDX-License-Identifier: Apache-2.0
"""The chat page in headless Chromium.

TRITON_CHAT_SCREENSHOTS names a folder that gets the documentation's pictures.
"""

import base64
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from scripts.launcher import page as launched_page
from scripts.launcher.child_process import ChildProcess
from scripts.setup.install_chromium import find_chromium
from scripts.split.splitter import split_checkpoint
from tests.fakes.certificate import write_certificate
from tests.support.demo_stack import draw_all
from tests.support.scripted import ScriptedStack, scripted_stack
from tests.support.videos import video
from tests.support.vlm_checkpoints import make_internvl
from tests.support.waiting import PATIENCE_S, running_requests, wait_until

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Tromsø"}}\n</tool_call>'
# Drops or pastes a file as the browser itself would: an event with the file in it.
HAND_OVER = """([kind, data, name]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, {type: name.endsWith(".mp4") ? "video/mp4" : "image/png"}));
    const box = document.querySelector("#box textarea");
    box.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: files, bubbles: true, cancelable: true})
        : new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.fail("no Chromium on PATH: run `make setup-browser`")
    with sync_playwright() as playwright:
        # Root has no sandbox in a container; the page is our own.
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """Scripted answers, and the page that the launcher starts."""
    folder = tmp_path_factory.mktemp("page")
    more = ["--ui", "--ui-port", "0"]
    with scripted_stack("qwen3", qwen3_tokenizer_dir, folder, ("qwen3", "qwen3-other-name"), more=more) as running:
        yield running


@pytest.fixture
def page(browser: Browser, qwen3: ScriptedStack) -> Iterator[Page]:
    assert qwen3.stack.ui_url is not None
    yield from opened(browser, qwen3.stack.ui_url)


def opened(browser: Browser, url: str) -> Iterator[Page]:
    """A tab of its own on the page, ready to be typed into. In the end it must not have asked anybody else."""
    context = browser.new_context(viewport={"width": 1000, "height": 760})
    context.set_default_timeout(PATIENCE_S * 1000)
    expect.set_options(timeout=PATIENCE_S * 1000)
    tab = context.new_page()
    asked: set[str] = set()
    tab.on("request", lambda request: asked.add(request.url))
    tab.goto(url)
    expect(tab.locator("#model input")).not_to_have_value("")
    yield tab
    context.close()
    elsewhere = {one for one in asked if urlsplit(one).scheme in ("http", "https") and not one.startswith(url)}
    assert not elsewhere


def say(page: Page, text: str) -> None:
    page.locator("#box textarea").fill(text)
    page.locator("#box textarea").press("Enter")


def idle(page: Page) -> None:
    """Wait until an answer is done: the stop button is gone."""
    expect(page.locator("#box .submit-button")).to_be_visible()
    expect(page.locator("#box .stop-button")).to_have_count(0)


def settings(page: Page) -> None:
    """Open the sidebar."""
    page.locator(".sidebar .toggle-button").click()
    expect(page.locator("#system textarea")).to_be_visible()


def field(page: Page, name: str) -> Locator:
    """A field of the sidebar."""
    return page.locator(f"#{name}").get_by_role("textbox")


def attach(page: Page, kind: str, path: Path) -> None:
    """Attach a file by `kind`: "choose" (the file dialog), "drop" or "paste"."""
    before = page.locator("#box .thumbnail-item").count()
    if kind == "choose":
        page.locator("#box input[type=file]").set_input_files(path)
    else:
        page.evaluate(HAND_OVER, [kind, base64.b64encode(path.read_bytes()).decode(), path.name])
    expect(page.locator("#box .thumbnail-item")).to_have_count(before + 1)


def picture(page: Page, name: str) -> None:
    """Save a picture for the documentation, if that is asked for."""
    folder = os.environ.get("TRITON_CHAT_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_streamed_text_after_folded_reasoning(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play(
        {"contains": "WAIT", "text": "Never shown."},
        {"text": "<think>\nNorway is far north.\n</think>\n\nThe sun stays up **all night** in June.", "delay_s": 0.15},
    )
    say(page, "When is the midnight sun?")
    bot = page.locator("#chat .bot.message")
    expect(page.locator("#chat .user.message")).to_contain_text("When is the midnight sun?")
    # Part of the text is on the page while the engine still writes the rest.
    expect(bot.last).to_contain_text("The sun stays")
    assert running_requests(qwen3.stack) == 1
    idle(page)
    expect(bot.last.locator("strong")).to_have_text("all night")
    reasoning = page.get_by_text("Norway is far north.")
    expect(page.get_by_text("Reasoning")).to_be_visible()
    expect(reasoning).to_be_hidden()
    page.get_by_text("Reasoning").click()
    expect(reasoning).to_be_visible()
    picture(page, "chat")


def test_stop_frees_the_engine_and_keeps_what_came(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play({"text": "On and on and on it goes, ", "repeat": True, "delay_s": 0.1})
    say(page, "Tell me a very long story.")
    expect(page.locator("#chat .bot.message").last).to_contain_text("On and on")
    wait_until(lambda: running_requests(qwen3.stack) == 1, "the request runs")
    page.locator("#box .stop-button").click()
    wait_until(lambda: running_requests(qwen3.stack) == 0, "the engine drops what was stopped")
    idle(page)
    expect(page.locator("#chat")).to_contain_text("Stopped.")
    # The conversation goes on from there.
    qwen3.play({"contains": "On and on", "text": "It goes on."})
    say(page, "Go on.")
    expect(page.locator("#chat .bot.message").last).to_contain_text("It goes on.")


def test_stop_before_the_first_token_gives_the_question_back(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play({"text": "Much too late.", "delay_s": 100.0})
    say(page, "Are you there?")
    wait_until(lambda: running_requests(qwen3.stack) == 1, "the request runs")
    page.locator("#box .stop-button").click()
    wait_until(lambda: running_requests(qwen3.stack) == 0, "the engine drops what was stopped")
    expect(page.locator("#box textarea")).to_have_value("Are you there?")
    expect(page.locator("#chat .user.message")).to_have_count(0)


def test_a_closed_tab_frees_the_engine(qwen3: ScriptedStack, browser: Browser) -> None:
    qwen3.play({"text": "On and on and on it goes, ", "repeat": True, "delay_s": 0.1})
    for tab in opened(browser, str(qwen3.stack.ui_url)):
        say(tab, "Tell me a very long story.")
        wait_until(lambda: running_requests(qwen3.stack) == 1, "the request runs")
    wait_until(lambda: running_requests(qwen3.stack) == 0, "the engine drops what nobody reads")


def test_a_reload_keeps_the_conversation_and_a_new_chat_drops_it(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play(
        {"contains": "My name is Ada.<|im_end|>\n<|im_start|>assistant\nHello, Ada.", "text": "You are Ada."},
        {"contains": "Who am I?", "text": "I do not know."},
        {"text": "Hello, Ada."},
    )
    say(page, "My name is Ada.")
    expect(page.locator("#chat")).to_contain_text("Hello, Ada.")
    idle(page)
    page.reload()
    expect(page.locator("#chat")).to_contain_text("Hello, Ada.")
    say(page, "Who am I?")
    expect(page.locator("#chat")).to_contain_text("You are Ada.")
    idle(page)
    page.locator("#new").click()
    expect(page.locator("#chat")).not_to_contain_text("Ada")
    say(page, "Who am I?")
    expect(page.locator("#chat")).to_contain_text("I do not know.")


def test_a_tool_call_and_its_result(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play(
        {"contains": "<tool_response>\nminus 3", "text": "It is minus 3 degrees in Tromsø."},
        {"contains": '"name": "get_weather"', "text": f"I shall look.\n{CALL}"},
    )
    settings(page)
    page.locator("#tools textarea").fill(json.dumps([WEATHER]))
    page.locator(".sidebar .toggle-button").click()
    say(page, "How cold is it in Tromsø?")
    expect(page.get_by_text("Tool call: get_weather")).to_be_visible()
    expect(page.locator("#chat pre")).to_contain_text('"city": "Tromsø"')
    idle(page)
    expect(page.locator("#box textarea")).to_have_attribute("placeholder", re.compile("result of get_weather"))
    say(page, "minus 3")
    expect(page.locator("#chat .bot.message").last).to_contain_text("It is minus 3 degrees in Tromsø.")
    idle(page)
    picture(page, "tools")


def test_controls(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play(
        # The template writes an empty block of reasoning where thinking is off.
        {"contains": "Be brief.<|im_end|>\n<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>",
         "text": "one two three four five"},
        {"text": "The controls did not arrive."},
    )  # fmt: skip
    assert page.locator("#model input").input_value() == "qwen3"
    settings(page)
    page.locator("#model input").click()
    page.get_by_role("option", name="qwen3-other-name").click()
    page.locator("#system textarea").fill("Be brief.")
    for control, value in (("temperature", "0.5"), ("top-p", "0.9"), ("max-tokens", "3"), ("seed", "7")):
        field(page, control).fill(value)
    page.locator("#thinking").get_by_label("off").check()
    picture(page, "settings")
    page.locator(".sidebar .toggle-button").click()
    say(page, "Count.")
    expect(page.locator("#chat .bot.message").last).to_contain_text("cut off")
    expect(page.locator("#chat")).to_contain_text("one two three")
    expect(page.locator("#chat")).not_to_contain_text("four")


@pytest.mark.python_engine("a Triton error overtakes the tokens before it")
def test_errors_are_sentences(qwen3: ScriptedStack, page: Page, tmp_path: Path) -> None:
    qwen3.play({"text": "This far and no further", "error_after": 2})
    say(page, "Break.")
    expect(page.locator("#chat")).to_contain_text("The answer broke off:")
    expect(page.locator("#chat")).to_contain_text("This far")
    idle(page)
    settings(page)
    field(page, "max-tokens").fill("999999999")
    page.locator(".sidebar .toggle-button").click()
    say(page, "And now?")
    expect(page.locator("#chat")).to_contain_text("The server refused this (400): ")
    expect(page.locator("#box textarea")).to_have_value("And now?")
    assert "{" not in page.locator("#chat .bot.message").last.inner_text()


def test_a_page_that_dies_is_restarted(qwen3: ScriptedStack, page: Page) -> None:
    part = qwen3.stack.parts[-1]
    assert part.name == launched_page.NAME
    os.kill(part.pid, signal.SIGKILL)

    def served_again() -> bool:
        qwen3.stack.restart_dead()
        try:
            return qwen3.stack.parts[-1].pid != part.pid and httpx.get(f"{qwen3.stack.ui_url}/health").is_success
        except httpx.TransportError:
            return False

    wait_until(served_again, "the page is served again")
    qwen3.play({"text": "Here I am."})
    page.reload()
    expect(page.locator("#model input")).not_to_have_value("")
    say(page, "Are you back?")
    expect(page.locator("#chat .bot.message").last).to_contain_text("Here I am.")


def test_keys_and_tls(browser: Browser, qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    """The launcher's page serves as safely as the API, and each visitor brings a key."""
    write_certificate(tmp_path / "server.pem")
    pem = str(tmp_path / "server.pem")
    more = ["--ui", "--ui-port", "0", "--api-key", "sk-right", "--tls-certificate", pem, "--tls-key", pem]
    with scripted_stack("qwen3", qwen3_tokenizer_dir, tmp_path / "stack", more=more) as running:
        running.play({"text": "Come in."})
        assert str(running.stack.ui_url).startswith("https://")
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        expect.set_options(timeout=PATIENCE_S * 1000)
        page.goto(str(running.stack.ui_url))
        expect(page.get_by_text("The server requires a valid API key.").first).to_be_visible()
        settings(page)
        page.locator("#key input").fill("sk-right")
        expect(page.locator("#model input")).to_have_value("qwen3")
        page.locator(".sidebar .toggle-button").click()
        say(page, "May I?")
        expect(page.locator("#chat .bot.message").last).to_contain_text("Come in.")
        idle(page)
        context.close()


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """Scripted answers behind a real vision tower."""
    folder = tmp_path_factory.mktemp("seeing")
    made = make_internvl(folder / "whole", qwen3_tokenizer_dir)
    served = split_checkpoint(made.path, folder / "served")
    with scripted_stack("internvl2_5", served, folder / "stack") as running:
        yield running


@pytest.fixture
def seeing_page(browser: Browser, internvl: ScriptedStack, tmp_path: Path) -> Iterator[Page]:
    """The page by itself, without the launcher, on the model that sees."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(launched_page.PYTHON), "-m", "chat_page", "--port", str(port)]
    environment = launched_page.page_environment(os.environ) | {"OPENAI_BASE_URL": f"{internvl.stack.url}/v1"}
    part = ChildProcess("page", command, environment, tmp_path / "page.log")
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert part.exit_status() is None, part.lines()
        try:
            return httpx.get(f"{url}/health").is_success
        except httpx.TransportError:
            return False

    wait_until(answers, "the page is served")
    yield from opened(browser, url)
    part.stop(10.0)


def test_pictures_in_several_turns(internvl: ScriptedStack, seeing_page: Page, tmp_path: Path) -> None:
    page = seeing_page
    draw_all(tmp_path)
    # The prompts as the engine gets them: each picture is in its turn, the first one also in the second request.
    answered = "<|im_end|>\n<|im_start|>assistant\nA red circle.<|im_end|>\n<|im_start|>user\n"
    first, second = "What do you see?", "And in these two?"
    internvl.play(
        {"contains": f"</img>\n{first}{answered}<img></img>\n<img></img>\n{second}", "text": "A square and a word."},
        {"contains": f"user\n<img></img>\n{first}", "text": "A red circle."},
    )
    attach(page, "choose", tmp_path / "red-circle.png")
    say(page, first)
    expect(page.locator("#chat .bot.message").last).to_contain_text("A red circle.")
    idle(page)
    attach(page, "paste", tmp_path / "left-right.png")
    attach(page, "drop", tmp_path / "word.png")
    say(page, second)
    expect(page.locator("#chat .bot.message").last).to_contain_text("A square and a word.")
    idle(page)
    expect(page.locator("#chat .user.message img")).to_have_count(3)
    picture(page, "pictures")
    page.reload()
    expect(page.locator("#chat .user.message img")).to_have_count(3)
    # Shown for real: a picture that the page may not load has no width.
    page.wait_for_function(
        "[...document.querySelectorAll('#chat .user.message img')].every(one => one.naturalWidth > 0)"
    )


def test_videos_and_a_picture_in_one_message(internvl: ScriptedStack, seeing_page: Page, tmp_path: Path) -> None:
    page = seeing_page
    draw_all(tmp_path)
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / name).write_bytes(video())
    frames = "".join(f"Frame{number}: <img></img>\n" for number in range(1, 9))
    question = "What happens?"
    internvl.play({"contains": f"user\n{frames}<img></img>\n{frames}{question}<|im_end|>", "text": "A bar moves."})
    attach(page, "choose", tmp_path / "one.mp4")
    attach(page, "choose", tmp_path / "word.png")
    attach(page, "drop", tmp_path / "two.mp4")
    say(page, question)
    expect(page.locator("#chat .bot.message").last).to_contain_text("A bar moves.")
    idle(page)
    expect(page.locator("#chat .user.message video")).to_have_count(2)
    # Shown for real: a video that the page may not load has no width.
    page.wait_for_function(
        "[...document.querySelectorAll('#chat .user.message video')].every(one => one.videoWidth > 0)"
    )
