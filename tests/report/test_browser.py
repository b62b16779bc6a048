"""The report as a browser shows it: a real Chromium, without a network, looked at by axe-core."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mnistlab.report import page, run_page
from tests.report.runs import evaluated, evil_page, record, stream, whole_page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core")

pytestmark = pytest.mark.e2e

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs a Chromium in PATH (Debian: apt install chromium)")
    with sync_api.sync_playwright() as driver:
        # The sandbox needs rights that containers lack; the page is our own.
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, whole_page())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with fewer trials and yet every kind of thing: axe looks at each element of it."""
    of = record(10)
    return written(tmp_path_factory, run_page.page("r0", of, stream(of), lambda *_: evaluated()))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, evil_page())


def written(tmp_path_factory: pytest.TempPathFactory, shown: run_page.RunPage) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page.html([shown]), encoding="utf-8")
    return file


@dataclass
class Shown:
    """A page that is open, with what it said on the console and what it asked the network for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def shown(browser: Any, file: Path, **how: Any) -> Shown:
    opened = Shown(browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | how)))
    opened.page.on("console", lambda said: opened.errors.append(f"{said.type}: {said.text}"))
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(file.as_uri())
    return opened


def with_live_charts(browser: Any, file: Path, **how: Any) -> Shown:
    """A page of which every chart has come into view, one after the other, and has come to life."""
    opened = shown(browser, file, **how)
    charts = opened.page.locator("figure:has(script.spec)")
    for number in range(charts.count()):
        charts.nth(number).scroll_into_view_if_needed()
        charts.nth(number).and_(opened.page.locator(".live")).wait_for(state="attached")
    return opened


@pytest.mark.parametrize("kind", ["report", "hostile"])
def test_every_chart_comes_to_life_without_a_word_and_nothing_is_asked_for(
    browser: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(kind)
    opened = with_live_charts(browser, file)
    assert opened.page.locator("figure.live").count() >= 11
    assert opened.errors == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}
    assert opened.page.evaluate("window.alerted") is None


def ranking(opened: Shown, column: int) -> list[str]:
    rows = opened.page.locator("table.ranking tbody tr:not([hidden])")
    return rows.locator(f"> :nth-child({column + 1})").all_inner_texts()


def column_of(opened: Shown, title: str) -> int:
    titles = opened.page.locator("table.ranking thead th").all_inner_texts()
    return next(i for i, text in enumerate(titles) if text.strip().startswith(title))


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(browser: Any, report: Path) -> None:
    opened = shown(browser, report)
    place = column_of(opened, "Parameters")
    heading = opened.page.locator("table.ranking thead th").nth(place)
    assert heading.get_attribute("aria-sort") == "none"
    heading.get_by_role("button").click()
    up = [int(text.replace(",", "")) for text in ranking(opened, place)]
    assert up == sorted(up)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").press("Enter")  # by the keyboard alone
    assert [int(text.replace(",", "")) for text in ranking(opened, place)] == up[::-1]
    assert heading.get_attribute("aria-sort") == "descending"
    assert opened.page.locator("[aria-sort=ascending]").count() == 0


def test_what_has_no_value_sorts_last_both_ways(browser: Any, report: Path) -> None:
    opened = shown(browser, report)
    place = column_of(opened, "Test accuracy")
    button = opened.page.locator("table.ranking thead th").nth(place).get_by_role("button")
    for _ in range(2):
        button.click()
        texts = ranking(opened, place)
        assert all(texts[:2])
        assert not any(texts[2:])


def test_words_and_states_leave_the_rows_that_have_them(browser: Any, report: Path) -> None:
    opened = shown(browser, report)
    everything = len(ranking(opened, 0))
    opened.page.get_by_label("State").select_option("pruned")
    pruned = ranking(opened, column_of(opened, "State"))
    assert set(pruned) == {"pruned"}
    opened.page.get_by_label("Find").fill("MLP")
    assert 0 < len(ranking(opened, 0)) < len(pruned)
    assert all("mlp" in text for text in ranking(opened, column_of(opened, "Model")))
    assert f"of {everything} trials" in opened.page.get_by_role("status").inner_text()
    opened.page.get_by_label("Find").fill("")
    opened.page.get_by_label("State").select_option("")
    assert len(ranking(opened, 0)) == everything


def test_a_trial_in_the_ranking_leads_to_its_record_and_opens_it(browser: Any, report: Path) -> None:
    opened = shown(browser, report)
    opened.page.locator("table.ranking").get_by_role("link", name="0003").click()
    record_ = opened.page.locator("#r0-trial-3")
    assert record_.evaluate("element => element.open")
    assert record_.get_by_text("mnistlab reproduce made-up 0003").is_visible()


def test_everything_can_be_read_with_scripts_switched_off(browser: Any, report: Path) -> None:
    opened = shown(browser, report, java_script_enabled=False)
    assert opened.page.locator("table.ranking tbody tr").count() == 24
    assert opened.page.locator(".plot svg").first.is_visible()
    assert not opened.page.locator(".tools").is_visible()
    opened.page.locator("#r0-trial-3 > summary").click()
    assert opened.page.get_by_text("mnistlab reproduce made-up 0003").is_visible()


@pytest.mark.parametrize(
    "looks",
    [
        [("light", 1280), ("dark", 390)],
        pytest.param([("dark", 1280), ("light", 390)], marks=pytest.mark.chaos),
    ],
)
def test_no_page_is_wider_than_its_window_and_axe_finds_nothing_serious(
    browser: Any, small: Path, looks: list[tuple[Literal["light", "dark"], int]]
) -> None:
    # axe comes in by a script of its own, which the page's policy rightly refuses: it is lifted for this test alone
    (scheme, width), *others = looks
    size = {"width": width, "height": 900}
    opened = with_live_charts(browser, small, color_scheme=scheme, viewport=size, bypass_csp=True)
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert_fits_and_is_sound(opened, width)
    for scheme, width in others:
        opened.page.emulate_media(color_scheme=scheme)
        opened.page.set_viewport_size({"width": width, "height": 900})
        assert_fits_and_is_sound(opened, width)


def assert_fits_and_is_sound(opened: Shown, width: int) -> None:
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(opened.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
    serious = [one for one in found.response["violations"] if one["impact"] in {"serious", "critical"}]
    assert not serious, [(one["id"], [node["target"] for node in one["nodes"][:3]]) for one in serious]


def test_on_paper_the_numbers_below_the_charts_are_there(browser: Any, report: Path) -> None:
    opened = shown(browser, report)
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("#r0-best .grid").is_visible()
    assert not opened.page.locator(".tools").is_visible()
    assert len(opened.page.pdf()) > 20_000
