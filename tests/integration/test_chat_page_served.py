# SPDX-License-Identifier: Apache-2.0
"""The chat page that the launcher starts, in headless Chromium: what it asks for reaches the engine, and so does its end."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.launcher import page as launched_page
from scripts.split.splitter import split_checkpoint
from tests.fakes.certificate import write_certificate
from tests.fakes.chat_server import chat_page
from tests.support.chat_page import attach, chromium, idle, say, settings, tab
from tests.support.demo_stack import draw_all
from tests.support.scripted import ScriptedStack, scripted_stack
from tests.support.videos import video
from tests.support.vlm_checkpoints import make_internvl
from tests.support.waiting import running_requests, wait_until

WEATHER = {"name": "get_weather", "description": "The weather of a city", "parameters": {"type": "object"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Tromsø"}}\n</tool_call>'
ENDLESS = {"text": "On and on and on it goes, ", "repeat": True, "delay_s": 0.1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """Scripted answers behind a key and TLS, and the page that the launcher starts."""
    folder = tmp_path_factory.mktemp("page")
    write_certificate(folder / "server.pem")
    pem = str(folder / "server.pem")
    more = ["--ui", "--ui-port", "0", "--api-key", "sk-right", "--tls-certificate", pem, "--tls-key", pem]
    with scripted_stack("qwen3", qwen3_tokenizer_dir, folder / "stack", ("qwen3", "alias"), more=more) as running:
        yield running


@pytest.fixture
def page(browser: Browser, qwen3: ScriptedStack) -> Iterator[Page]:
    """The launcher's page, which serves as safely as the API; each visitor brings a key."""
    assert str(qwen3.stack.ui_url).startswith("https://")
    with tab(browser, str(qwen3.stack.ui_url)) as opened:
        opened.locator("#key").fill("sk-right")
        opened.keyboard.press("Enter")
        expect(opened.locator("#model option")).to_have_text(["qwen3", "alias"])
        yield opened


def test_a_streamed_answer_with_reasoning_and_figures(qwen3: ScriptedStack, page: Page) -> None:
    text = "<think>\nNorway is far north.\n</think>\n\nThe sun stays up **all night** in June."
    qwen3.play({"contains": "Be brief.", "text": text, "delay_s": 0.15}, {"text": "The settings did not arrive."})
    settings(page, system="Be brief.", max_tokens="30")
    say(page, "When is the midnight sun?")
    # Part of the text is on the page while the engine still writes the rest.
    expect(page.locator(".answer")).to_contain_text("The sun stays")
    assert running_requests(qwen3.stack) == 1
    idle(page)
    expect(page.locator(".answer strong")).to_have_text("all night")
    expect(page.locator(".reasoning")).to_contain_text("Norway is far north.")
    expect(page.locator(".figures")).to_contain_text("tokens/s")
    qwen3.play({"contains": "far north", "text": "Reasoning was sent."}, {"contains": "all night", "text": "In June."})
    say(page, "When again?")
    expect(page.locator(".answer").last).to_have_text("In June.")


@pytest.mark.parametrize("rule", [ENDLESS, {"text": "Much too late.", "delay_s": 100.0}], ids=["growing", "waiting"])
def test_stopping_frees_the_engine(qwen3: ScriptedStack, page: Page, rule: dict[str, object]) -> None:
    qwen3.play(rule)
    say(page, "Tell me a very long story.")
    wait_until(lambda: running_requests(qwen3.stack) == 1, "the request runs")
    page.keyboard.press("Escape")
    wait_until(lambda: running_requests(qwen3.stack) == 0, "the engine drops what was stopped")
    expect(page.locator("article.assistant")).to_contain_text("Stopped.")


def test_a_closed_tab_frees_the_engine(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play(ENDLESS)
    say(page, "Tell me a very long story.")
    wait_until(lambda: running_requests(qwen3.stack) == 1, "the request runs")
    page.close()
    wait_until(lambda: running_requests(qwen3.stack) == 0, "the engine drops what nobody reads")


def test_a_tool_call_and_its_result(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play(
        {"contains": "<tool_response>\nminus 3", "text": "It is minus 3 degrees in Tromsø."},
        {"contains": '"name": "get_weather"', "text": f"I shall look.\n{CALL}"},
    )
    settings(page, tools=json.dumps([WEATHER]), thinking="off")
    say(page, "How cold is it in Tromsø?")
    expect(page.locator("article pre")).to_contain_text('"city": "Tromsø"')
    idle(page)
    say(page, "minus 3")
    expect(page.locator(".answer").last).to_contain_text("It is minus 3 degrees in Tromsø.")


@pytest.mark.python_engine("a Triton error overtakes the tokens before it")
def test_errors_are_sentences(qwen3: ScriptedStack, page: Page) -> None:
    qwen3.play({"text": "This far and no further", "error_after": 2})
    say(page, "Break.")
    expect(page.locator("article .error")).to_contain_text("The answer broke off:")
    expect(page.locator(".answer")).to_contain_text("This far")
    settings(page, max_tokens="999999999")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("article .error")).to_contain_text("The server refused this (400): ")


def test_a_page_that_dies_is_restarted(qwen3: ScriptedStack, page: Page) -> None:
    part = qwen3.stack.parts[-1]
    assert part.name == launched_page.NAME
    os.kill(part.pid, signal.SIGKILL)

    def served_again() -> bool:
        qwen3.stack.restart_dead()
        try:
            answered = httpx.get(f"{qwen3.stack.ui_url}/health", verify=False).is_success
            return qwen3.stack.parts[-1].pid != part.pid and answered
        except httpx.TransportError:
            return False

    wait_until(served_again, "the page is served again")
    qwen3.play({"text": "Here I am."})
    say(page, "Are you back?")
    expect(page.locator(".answer")).to_have_text("Here I am.")


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """Scripted answers behind a real vision tower."""
    folder = tmp_path_factory.mktemp("seeing")
    made = make_internvl(folder / "whole", qwen3_tokenizer_dir)
    served = split_checkpoint(made.path, folder / "served")
    with scripted_stack("internvl2_5", served, folder / "stack") as running:
        yield running


@pytest.fixture
def seeing_page(browser: Browser, internvl: ScriptedStack) -> Iterator[Page]:
    """The page by itself, without the launcher, on the model that sees."""
    with chat_page(f"{internvl.stack.url}/v1") as url, tab(browser, url) as opened:
        expect(opened.locator("#model")).not_to_have_value("")
        yield opened


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
    expect(page.locator(".answer")).to_have_text("A red circle.")
    idle(page)
    page.reload()
    expect(page.locator("article img")).to_have_count(1)
    expect(page.locator("#model")).not_to_have_value("")
    attach(page, "paste", tmp_path / "left-right.png")
    attach(page, "drop", tmp_path / "word.png")
    say(page, second)
    expect(page.locator(".answer").last).to_have_text("A square and a word.")


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
    expect(page.locator(".answer")).to_have_text("A bar moves.")
