"""The report's page in headless Chromium, opened from a file:// address: made of the results of the repository."""

import base64
import re

import pytest
from conftest import REPOSITORY, Workplace, chromium
from test_report import copy_kept


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    workplace = Workplace(tmp_path_factory.mktemp("page"))
    copy_kept(workplace.results)
    (workplace.results / "ipoisoning/label-flips/notes.txt").write_text("to do")
    workplace.succeed("python3", "report.py", MODELS=REPOSITORY / "models")
    return workplace.results / "report.html"


@pytest.fixture(scope="module")
def browser(page):
    with chromium(page) as driver:
        yield driver


def test_the_page_needs_no_other_file(page):
    html = page.read_text()
    assert not re.search(r"<link|@import|url\(|<script[^>]+src|<img[^>]+src=\"(?!data:image/png;base64,)", html)


def test_it_opens_without_errors_and_its_pictures_load(browser):
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    loaded = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth > 100)"
    )
    assert loaded == [True] * 12
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length"
        )
        == 0
    )


def test_the_first_screen_says_what_was_reproduced(browser):
    browser.set_window_size(1200, 900)
    verdicts = browser.execute_script(
        "return [...document.querySelectorAll('#verdicts tbody tr')].map(row => row.innerText)"
    )
    assert [row[:3] for row in verdicts] == [f"({letter})" for letter in "abcdef"]
    assert all(
        re.search(r"reproduced|not run", row)
        and re.search(r"\d+ of \d+ checks( \(\d+ not run\))?, \d+ of \d+ controls( \(\d+ not run\))?", row)
        for row in verdicts
    )
    assert [row[1] for row in verdicts if "not run" in row] == []  # the kept results are whole
    assert browser.execute_script(
        "return document.querySelector('#counts').getBoundingClientRect().bottom <= innerHeight"
    )


def test_every_inner_link_has_an_end_and_left_out_files_are_named(browser):
    lost = browser.execute_script(
        "return [...document.querySelectorAll('a[href^=\"#\"]')].map(link => link.getAttribute('href'))"
        ".filter(name => !document.querySelector(name))"
    )
    assert lost == []
    assert "notes.txt" in browser.find_element("id", "left-out").find_element("xpath", "following-sibling::div").text


def column(browser, number):
    rows = "document.querySelectorAll('#table-indiscriminate tbody tr')"
    script = f"return [...{rows}].map(row => row.cells[arguments[0]].textContent)"
    return [float(text) for text in browser.execute_script(script, number)]


def test_tables_sort_by_a_click_and_by_the_keyboard(browser):
    headings = browser.find_elements("css selector", "#table-indiscriminate th")
    names = [heading.get_attribute("textContent") for heading in headings]
    number = names.index("best acc")
    browser.execute_script("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    values = column(browser, number)
    assert len(values) > 700 and values != sorted(values)
    headings[number].click()
    assert column(browser, number) == sorted(values, reverse=True)
    headings[number].click()
    assert column(browser, number) == sorted(values)
    headings[names.index("ratio")].send_keys("\ue007")  # Enter
    ratios = column(browser, names.index("ratio"))
    assert ratios == sorted(ratios, reverse=True)


def test_it_fits_a_narrow_screen(browser):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    width, visible = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert visible == 360 and width <= visible


def test_it_prints_with_every_table_open(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(details => { details.open = false; })")
    printed = base64.b64decode(printed_page(browser))
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 20
    assert browser.execute_script("return [...document.querySelectorAll('details')].every(details => details.open)")


def printed_page(browser) -> str:
    """The page as a PDF: Chromium gives up after ten seconds, too few on a busy machine, so again."""
    from selenium.common.exceptions import TimeoutException

    for _ in range(5):
        try:
            return browser.print_page()
        except TimeoutException:
            continue
    return browser.print_page()
