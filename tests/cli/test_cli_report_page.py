"""The report in a browser: drawn charts, no error, no sideways scrolling, light and dark, with the keyboard."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from cli_helpers import SMALL_TRAINING, call
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHARTS = ("curves", "by-popularity", "overlap-0", "confidence-0")


@pytest.fixture(scope="module")
def report(dataset: Path, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for name, options in {"plain": [], "taught": ["--method", "dllm2rec", "--knowledge", taught]}.items():
        outcome = call("train", dataset, *SMALL_TRAINING, *options, "--out", folder / name)
        assert outcome.code == 0, outcome.err
    outcome = call("report", folder / "plain", folder / "taught", "--out", folder / "report.html")
    assert outcome.code == 0, outcome.err
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def show(browser: Browser, report: Path, width: int, scheme: Literal["light", "dark"]) -> tuple[Page, list[str]]:
    """Open the report without a network; returns the page and what went wrong on it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    page.goto(report.as_uri())
    return page, wrong


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_and_nothing_goes_wrong(
    browser: Browser, report: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page, wrong = show(browser, report, width, scheme)
    assert "did the teacher teach" in page.locator("h1").inner_text()
    for name in CHARTS:
        chart = page.locator(f"#{name}")
        chart.scroll_into_view_if_needed()
        drawn = chart.locator(".lines path.js-line" if name == "curves" else ".bars path")
        assert drawn.count() > 1, name
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 0.7 * min(width, 992)
        assert box["x"] + box["width"] <= width
    ink = page.locator("#curves .xtitle").evaluate("one => getComputedStyle(one).fill")
    assert (sum(map(int, ink[4:-1].split(","))) > 384) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert wrong == []


def test_the_answer_is_in_the_first_screen_of_a_phone(browser: Browser, report: Path) -> None:
    page, _ = show(browser, report, 390, "light")
    box = page.locator(".answer").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 844


def test_tables_and_settings_are_reached_with_the_keyboard(browser: Browser, report: Path) -> None:
    page, _ = show(browser, report, 390, "light")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.className || document.activeElement.tagName")
        reached.add(name)
        if name == "SUMMARY":
            break
    assert {"scroll", "SUMMARY"} <= reached
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
