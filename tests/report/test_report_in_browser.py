# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: no error, nothing fetched, everything fits a phone, charts answer the pointer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from guerdon.report import write_report
from tests.report import make_run

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
)

PHONE, DESK = (390, 844), (1280, 900)

FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A study, a run alone with timeouts, and two studies side by side."""
    runs = tmp_path_factory.mktemp("runs")
    make_run.write_study(runs / "quickstart")
    make_run.write_study(runs / "again", seeds=2, lengths=False)
    make_run.write_seed(runs / "alone", "dense", 1, tags=False, timeouts=0.04)
    return {
        "study": write_report([runs / "quickstart"]),
        "single": write_report([runs / "alone"]),
        "two": write_report([runs / "quickstart", runs / "again"], runs / "two.html"),
    }


def visit(browser: Any, page: Path, size: tuple[int, int], dark: bool = False) -> None:
    width, height = size
    browser.get_log("performance"), browser.get_log("browser")  # what an earlier page left behind
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri())


@pytest.mark.parametrize("kind", ["study", "single", "two"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_opens_quietly_and_fits(browser: Any, pages: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    visit(browser, pages[kind], size)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert pages[kind].as_uri() in asked  # the log does see requests
    assert {url for url in asked if not url.startswith("data:")} == {pages[kind].as_uri()}
    wide, inside = browser.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= inside <= size[0]


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_charts_have_size_and_legible_text(browser: Any, pages: dict[str, Path], size: tuple[int, int]) -> None:
    visit(browser, pages["study"], size)
    charts = browser.execute_script(
        """return [...document.querySelectorAll('.plot')].filter(p => p.offsetParent).map(p => ({
            width: p.clientWidth, height: p.clientHeight,
            drawn: Math.max(...[...p.querySelectorAll('path.line')].map(l => l.getBoundingClientRect().width)),
            text: Math.min(...[...p.querySelectorAll('.tick')].map(t => parseFloat(getComputedStyle(t).fontSize)))}))"""
    )
    assert len(charts) == 11  # one learning curve of six, lengths, 1 + 4 + 1 parts and shares, three of training
    for chart in charts:
        assert chart["width"] >= 150
        assert chart["height"] >= 150
        assert chart["drawn"] >= chart["width"] * 0.4
        assert chart["text"] >= 12


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_ticks_of_an_axis_do_not_overlap(browser: Any, pages: dict[str, Path], size: tuple[int, int]) -> None:
    visit(browser, pages["study"], size)
    overlaps = browser.execute_script(
        """return [...document.querySelectorAll('.plot')].filter(p => p.offsetParent).flatMap(p => {
            const boxes = [...p.querySelectorAll('.tick.x')].map(t => t.getBoundingClientRect());
            return boxes.slice(1).filter((b, i) => b.left < boxes[i].right).map(() => p.getAttribute('aria-label'));})"""
    )
    assert overlaps == []


def test_the_verdict_shows_the_numbers_of_result_json(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["study"], PHONE)
    stored = json.loads((pages["study"].parent / "result.json").read_text())["arms"]
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.tile')].map(t => ['.name', '.value'].map(c => t.querySelector(c).innerText))"
    )
    assert {name: value.replace("\xa0", " ") for name, value in shown} == {
        arm: f"{100 * fmean(result['success']):.0f} %" for arm, result in stored.items()
    }


def test_switches_change_the_curve(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    visit(browser, pages["study"], DESK)

    def visible() -> list[tuple[str, str]]:
        panels = [p for p in browser.find_elements(By.CSS_SELECTOR, ".panel") if p.is_displayed()]
        return [(p.find_element(By.TAG_NAME, "h3").text, p.find_element(By.CLASS_NAME, "x-label").text) for p in panels]

    assert visible() == [("Held-out success, sampled", "completions sampled")]
    browser.find_element(By.XPATH, "//label[text()='greedy']").click()
    browser.find_element(By.XPATH, "//label[text()='by time']").click()
    assert visible() == [("Held-out success, greedy", "time")]


def test_pointing_at_a_curve_shows_its_values(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    visit(browser, pages["study"], DESK)
    plot = browser.find_element(By.CSS_SELECTOR, "#learning .plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(browser).move_to_element_with_offset(plot, plot.size["width"] // 2 - 2, 0).perform()
    last, *rows = browser.find_element(By.ID, "tip").text.replace("\xa0", " ").split("\n")
    assert last == f"{make_run.STEPS * make_run.BATCH:,} samples"
    stored = json.loads((pages["study"].parent / "result.json").read_text())["arms"]
    assert [row.split(" (")[0] for row in rows] == [f"{arm}: {100 * fmean(r['success']):.0f} %" for arm, r in stored.items()]


def test_pointing_at_a_token_shows_its_reward(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    visit(browser, pages["study"], DESK)
    token = browser.find_element(By.CSS_SELECTOR, ".completion .tok.ending.plus")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", token)
    ActionChains(browser).move_to_element(token).perform()
    assert browser.find_element(By.ID, "tip").text == token.get_attribute("data-tip")


def test_the_pages_colours_follow_the_readers(browser: Any, pages: dict[str, Path]) -> None:
    def lightness() -> tuple[float, float]:
        rgb = browser.execute_script(
            "const s = getComputedStyle(document.body);"
            "return [s.backgroundColor, s.color].map(c => c.match(/\\d+/g).slice(0, 3).map(Number))"
        )
        return tuple(fmean(c) / 255 for c in rgb)  # type: ignore[return-value]

    visit(browser, pages["study"], PHONE, dark=False)
    paper, ink = lightness()
    assert paper - ink > 0.7
    visit(browser, pages["study"], PHONE, dark=True)
    paper, ink = lightness()
    assert ink - paper > 0.7
