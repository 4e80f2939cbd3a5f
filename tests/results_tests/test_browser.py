"""The page in a real browser: what a reader does with it. Skipped where no Chromium is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from results.front import front, knee
from results.report import page
from search.config import RunConfig
from search.record import Record

selenium = pytest.importorskip("selenium.webdriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

Made = tuple[list[Record], RunConfig]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=1280,1600"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


def show(browser: Any, text: str, folder: Path) -> None:
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    browser.get(path.as_uri())
    browser.execute_script("sessionStorage.clear()")
    browser.refresh()
    drawn(browser)


def drawn(browser: Any) -> None:
    """Wait for the frame after the first, in which the page draws its lower plots."""
    browser.execute_async_script("requestAnimationFrame(arguments[0])")


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture(scope="module")
def written(made: Made) -> str:
    return page(*made, Path("runs/made-up"))


@pytest.fixture
def opened(browser: Any, written: str, tmp_path: Path) -> Iterator[Any]:
    show(browser, written, tmp_path)
    yield browser
    assert errors(browser) == []


def text(browser: Any, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


def rows(browser: Any) -> list[int]:
    return [int(row.get_attribute("data-trial")) for row in browser.find_elements("css selector", "#table tbody tr")]


def click(browser: Any, element: Any, *, drag: tuple[int, int] | None = None) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    actions = selenium.ActionChains(browser).move_to_element(element)
    if drag:
        actions.click_and_hold().move_by_offset(*drag).release().perform()
    else:
        actions.click().perform()


def test_the_page_opens_on_the_front_with_the_knee_selected(opened: Any, made: Made) -> None:
    members = front(*made)
    assert text(opened, "h1") == "made-up"
    assert rows(opened) == [record.number for record in members]
    assert knee(members, made[1]).identity in text(opened, "#detail")
    assert len(opened.find_elements("css selector", ".panel")) == 3
    assert len(opened.find_elements("css selector", ".panel:first-child circle.dot")) == len(members)
    for section in ("#endings", "#commons", "#importance", "#provenance", "#progress"):
        assert text(opened, section)


def test_a_click_on_a_point_selects_its_row_and_shows_its_architecture(opened: Any, made: Made) -> None:
    member = front(*made)[-1]
    assert member.candidate is not None
    click(opened, opened.find_element("css selector", f".panel:first-child circle[data-trial='{member.number}']"))
    assert text(opened, "#table tr.on code") == member.identity
    detail = text(opened, "#detail")
    assert f"lrf-search export runs/made-up --pick {member.identity}" in detail
    assert len(opened.find_elements("css selector", "#detail .block")) == 3 + len(
        member.candidate.model.attention_blocks
    )
    assert "state" in detail


def test_a_row_and_the_keyboard_select_too(opened: Any, made: Made) -> None:
    first, last = front(*made)[0], front(*made)[-1]
    click(opened, opened.find_element("css selector", f"#table tr[data-trial='{last.number}']"))
    assert last.identity in text(opened, "#detail")
    dot = opened.find_element("css selector", f".panel:nth-child(2) circle[data-trial='{first.number}']")
    dot.send_keys("\ue007")  # enter
    assert first.identity in text(opened, "#detail")


def test_hovering_shows_the_configuration(opened: Any, made: Made) -> None:
    member = front(*made)[0]
    dot = opened.find_element("css selector", f".panel:first-child circle[data-trial='{member.number}']")
    selenium.ActionChains(opened).move_to_element(dot).perform()
    tip = text(opened, "#tip")
    assert member.identity in tip
    assert "learning rate" in tip


def test_a_drag_filters_every_view_and_can_be_undone(opened: Any, made: Made) -> None:
    before = rows(opened)
    plot = opened.find_element("css selector", ".panel:first-child .plot")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    actions = selenium.ActionChains(opened).move_to_element(plot)
    actions.move_by_offset(-100, -140).click_and_hold().move_by_offset(110, 200).release().perform()
    after = rows(opened)
    assert 0 < len(after) < len(before)
    assert len(opened.find_elements("css selector", ".chip")) == 2
    dimmed = opened.find_elements("css selector", ".panel:nth-child(3) circle.dot.dim")
    assert len(dimmed) == len(before) - len(after)
    click(opened, opened.find_element("id", "clear"))
    assert rows(opened) == before
    assert opened.find_elements("css selector", ".chip") == []


def test_brushing_an_axis_of_the_parallel_coordinates_filters(opened: Any, made: Made) -> None:
    axis = opened.find_element("css selector", "#parallel rect[data-axis='T']")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", axis)
    actions = selenium.ActionChains(opened).move_to_element(axis)
    actions.move_by_offset(0, 60).click_and_hold().move_by_offset(0, 70).release().perform()
    few = [record.number for record in front(*made) if record.candidate and record.candidate.model.timesteps == 1]
    assert rows(opened) == few
    assert text(opened, ".chip").startswith("T:")


def test_the_theme_and_the_table_switch(opened: Any, made: Made) -> None:
    theme = opened.execute_script("return document.documentElement.dataset.theme")
    paper = "return getComputedStyle(document.body).backgroundColor"
    before = opened.execute_script(paper)
    click(opened, opened.find_element("id", "theme"))
    assert opened.execute_script("return document.documentElement.dataset.theme") != theme
    assert opened.execute_script(paper) != before
    click(opened, opened.find_element("css selector", "[data-rows='all']"))
    complete = [record for record in made[0] if record.status == "complete"]
    assert len(rows(opened)) == len(complete)
    click(opened, opened.find_element("css selector", "th:nth-child(2)"))  # sort by energy
    energies = [next(r for r in complete if r.number == n).metrics["energy_mj"] for n in rows(opened)]
    assert energies == sorted(energies)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_the_screen(opened: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.refresh()
    drawn(opened)
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        wide = """return [...document.querySelectorAll('.plot, .card, .tile b')].filter((n) => !n.closest('.scroll')
            && n.getBoundingClientRect().right > n.parentNode.getBoundingClientRect().right + 1).length"""
        assert opened.execute_script(wide) == 0
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_in_records_cannot_become_markup(browser: Any, made: Made, tmp_path: Path) -> None:
    records, run = made
    evil = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    spoiled = [r.model_copy(update={"reason": evil}) if r.status == "stopped" else r for r in records]
    show(browser, page(spoiled, run, Path(f"runs/{evil.replace('/', '')}")), tmp_path)
    assert "owned" not in browser.title
    assert "onerror" in text(browser, "#endings")
    assert browser.find_elements("css selector", "img") == []
    assert errors(browser) == []


def test_a_watched_page_keeps_what_was_selected(browser: Any, made: Made, tmp_path: Path) -> None:
    records, run = made
    show(browser, page(records, run, Path("runs/watched"), refresh=3600), tmp_path)
    member = front(records, run)[-1]
    click(browser, browser.find_element("css selector", f"#table tr[data-trial='{member.number}']"))
    browser.refresh()
    assert member.identity in text(browser, "#detail")
    assert errors(browser) == []
