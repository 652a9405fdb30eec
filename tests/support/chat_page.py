# SPDX-License-Identifier: Apache-2.0
"""The chat page in headless Chromium: a browser, tabs, and what a visitor does in them.

TRITON_CHAT_SCREENSHOTS names a folder that gets the documentation's pictures.
"""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from scripts.setup.install_chromium import find_chromium
from tests.support.waiting import PATIENCE_S

DESKTOP, PHONE = {"width": 1100, "height": 760}, {"width": 390, "height": 760}
# Drops or pastes a file as the browser itself would: an event with the file in it.
HAND_OVER = """([kind, data, name, target]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const files = new DataTransfer();
    const types = {mp4: "video/mp4", png: "image/png", txt: "text/plain"};
    files.items.add(new File([bytes], name, {type: types[name.split(".").pop()] ?? ""}));
    const place = document.querySelector(target);
    const more = {bubbles: true, cancelable: true};
    place.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: files, ...more})
        : new DragEvent(kind, {dataTransfer: files, ...more}));
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium."""
    program = find_chromium()
    if program is None:
        pytest.fail("no Chromium on PATH: run `make setup-browser`")
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        # Root has no sandbox in a container; the page is our own.
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def tab(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A tab of its own on the page. In the end it must have had no error, and have asked nobody but the page."""
    context = browser.new_context(**({"viewport": DESKTOP, "ignore_https_errors": True} | options))
    asked: set[str] = set()
    errors: list[str] = []
    context.on("request", lambda request: asked.add(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    yield open_tab(context, url)
    context.close()
    assert not errors
    assert not {one for one in asked if urlsplit(one).scheme in ("http", "https") and not one.startswith(url)}


def open_tab(context: BrowserContext, url: str) -> Page:
    """One more tab of the same visitor."""
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    page.goto(url)
    return page


def say(page: Page, text: str) -> None:
    """Type a message and send it."""
    page.locator("#question").fill(text)
    page.locator("#question").press("Enter")


def idle(page: Page) -> None:
    """Wait until an answer is done: the stop button is gone."""
    expect(page.locator(".send")).to_be_visible()


def settings(page: Page, **values: str) -> None:
    """Fill fields of the settings by their names, and close them."""
    page.get_by_label("Settings", exact=True).first.click()
    for name, value in values.items():
        control = page.locator(f"dialog [name={name}]")
        if control.evaluate("one => one.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
    page.get_by_role("button", name="Done").click()


def attach(page: Page, kind: str, path: Path, target: str = "#question") -> None:
    """Attach a file by `kind`: "choose" (the file dialog), "drop" or "paste"."""
    before = page.locator(".attached li").count()
    hand_over(page, kind, path, target)
    expect(page.locator(".attached li")).to_have_count(before + 1)


def hand_over(page: Page, kind: str, path: Path, target: str = "#question") -> None:
    """Give the page a file, which it may refuse."""
    if kind == "choose":
        page.locator("#files").set_input_files(path)
    else:
        page.evaluate(HAND_OVER, [kind, base64.b64encode(path.read_bytes()).decode(), path.name, target])


def picture(page: Page, name: str) -> None:
    """Save a picture for the documentation, if that is asked for."""
    folder = os.environ.get("TRITON_CHAT_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
