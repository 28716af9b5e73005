"""The report's page in headless Chromium, opened from a file:// address: made of the results of the repository."""

import base64
import hashlib
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, chromium

from reports import plots, reasons

pytestmark = pytest.mark.slow  # the page takes half a minute to make


@pytest.fixture(scope="module")
def page(kept_report):
    workplace, _ = kept_report
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


# --- search and filter ---


def ask(browser, words: str = "", verdict: str = "") -> None:
    """Type into the search box, and choose a verdict."""
    from selenium.webdriver.support.ui import Select

    box = browser.find_element("id", "find")
    box.clear()
    box.send_keys(words)
    Select(browser.find_element("id", "verdict")).select_by_value(verdict)


def shown_rows(browser, table: str = "table.searched") -> list[dict]:
    """The rows of tables that can be seen, with the text of each cell by the name of its column."""
    return browser.execute_script(
        """return [...document.querySelectorAll(arguments[0])].flatMap(table => [...table.tBodies[0].rows]
            .filter(row => row.offsetHeight).map(row => Object.fromEntries([...row.cells].map((cell, index) =>
                [table.tHead.rows[0].cells[index].dataset.column, cell.textContent.trim()]))));""",
        table,
    )


@pytest.fixture
def searched(browser):
    """The page with an empty search, which it has again at the end."""
    yield browser
    browser.execute_script("clearSearch()")


def test_a_search_narrows_the_rows_of_all_tables(searched):
    kept = pd.read_csv(REPOSITORY / "results/tables/indiscriminate.csv", dtype=str)
    ask(searched, "Minmax 4:0.025")
    rows = shown_rows(searched, "#table-indiscriminate")
    wanted = kept[(kept.attack == "minmax") & kept.shaping.str.contains("4:0.025", regex=False)]
    assert 0 < len(rows) == len(wanted) < len(kept)
    everywhere = shown_rows(searched)
    assert all({"minmax", "4:0.025"} <= set(re.split(r"[\n;, ]", " ".join(row.values()))) for row in rows)
    counted = re.fullmatch(r"(\d+) of (\d+) rows, in (\d+) of (\d+) tables", searched.find_element("id", "found").text)
    assert int(counted[1]) == len(everywhere) >= len(rows) and int(counted[3]) < int(counted[4])
    assert searched.find_element("id", "claim-a").is_displayed() is False  # what has no such row is out of the way
    ask(searched, "ratio:0.4 attack:slabs")
    rows = shown_rows(searched)
    assert rows and {(row["ratio"], row["attack"]) for row in rows} == {("0.4", "slabs")}
    ask(searched, "no such words anywhere")
    assert shown_rows(searched) == []
    searched.find_element("id", "clear").click()
    assert searched.find_element("id", "claim-a").is_displayed() and searched.find_element("id", "find").text == ""


@pytest.mark.parametrize("verdict", ("outside", "within", "not run", "unfinished"))
def test_rows_of_one_verdict_can_be_chosen(verdict, searched):
    ask(searched, verdict=verdict)
    for name in ("indiscriminate", "gradients", "insertion", "tpoisoning", "models"):
        kept = pd.read_csv(REPOSITORY / f"results/tables/{name}.csv")
        rows = shown_rows(searched, f"#table-{name}")
        assert len(rows) == (kept.verdict == verdict).sum() and {row["verdict"] for row in rows} <= {verdict}
    assert shown_rows(searched, "#table-seeds") == []  # which has no verdicts


def test_failed_checks_can_be_chosen_and_a_link_leads_out_of_the_search(searched):
    ask(searched, verdict="failed")
    kept = pd.read_csv(REPOSITORY / "results/tables/claims.csv", dtype=str)
    failed = kept[kept.passed == "False"]
    assert [row["check"] for row in shown_rows(searched, "table.checks")] == list(failed.check)
    assert [row["check"] for row in shown_rows(searched, "#table-claims")] == list(failed.check)
    searched.execute_script("document.querySelector('#table-claims').closest('section').querySelector('a').click()")
    assert searched.execute_script("return document.body.classList.contains('searching')")  # a link to a file
    searched.execute_script("location.hash = ''; document.querySelector('a[href=\"#figure-poisons\"]').click()")
    assert searched.find_element("id", "figure-poisons").is_displayed()


# --- how it looks ---


def sized(browser, width: int, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.fixture(params=(1400, 420, 360))
def width(request, browser):
    sized(browser, request.param)
    yield request.param
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_reaches_beyond_the_screen_and_no_table_out_of_its_frame(width, browser):
    browser.execute_script("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page, visible = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert visible == width and page <= width
    beyond = browser.execute_script(
        """const right = document.documentElement.clientWidth + 0.5, frames = [...document.querySelectorAll('.scroll')];
        const out = [...document.querySelectorAll('main > *, section > *, .scroll, figure, p, li, dd')].filter(part =>
            part.offsetWidth && !part.closest('td') && part.getBoundingClientRect().right > right);
        const loose = [...document.querySelectorAll('table')].filter(table => !table.closest('.scroll'));
        const wide = frames.filter(frame => frame.scrollWidth > frame.clientWidth);
        const cut = wide.filter(frame => getComputedStyle(frame).overflowX !== 'auto');
        return [...out, ...loose, ...cut].map(part => part.outerHTML.slice(0, 80));"""
    )
    assert beyond == []
    cells = browser.execute_script(  # texts stay within their cells
        """return [...document.querySelectorAll('#table-indiscriminate td, .checks td')].filter(cell =>
            cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.textContent)"""
    )
    assert cells == []


def test_the_summary_fits_one_screen(browser):
    sized(browser, 1400)
    browser.execute_script("scrollTo(0, 0)")
    ends = browser.execute_script(
        "return ['#verdicts', '#counts', '#made', '.summary'].map(part =>"
        " document.querySelector(part).getBoundingClientRect().bottom)"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert max(ends) <= 900 and min(ends) > 100
    told = dict(
        browser.execute_script(
            "return [...document.querySelectorAll('#made dt')].map(name =>"
            " [name.textContent, name.nextElementSibling.textContent])"
        )
    )
    assert {"results counted", "date", "commit", "processor", "GPU", "software", "files left out"} <= set(told)
    assert re.match(r"[\d,]+ trainings, \d+ gradient analyses, [\d,]+ targets", told["results counted"])


def test_headings_and_the_bar_stay_at_the_top(width, browser):
    browser.execute_script("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    places = browser.execute_script(
        """const table = document.querySelector('#table-indiscriminate'), frame = table.closest('.scroll');
        frame.scrollIntoView();
        frame.scrollTo(200, 5000);
        const top = part => part.getBoundingClientRect().top, left = part => part.getBoundingClientRect().left;
        const bar = document.querySelector('.bar'), rows = table.tBodies[0].rows;
        return {frame: top(frame), heading: top(table.tHead.rows[0].cells[3]), row: top(rows[0]), bar: top(bar),
            frameLeft: left(frame), first: left(rows[200].cells[0]), below: bar.getBoundingClientRect().bottom,
            scrolled: [scrollY, frame.scrollTop]};"""
    )
    assert min(places["scrolled"]) > 1000 and places["row"] < -1000  # it was scrolled, and so were its rows
    assert places["heading"] == pytest.approx(places["frame"] + 1, abs=1)  # below the frame's line
    assert places["first"] == pytest.approx(places["frameLeft"] + 1, abs=1)
    assert places["bar"] == 0 and places["below"] <= places["frame"]


# --- why, and plots ---


def test_every_verdict_that_is_not_reproduced_is_followed_by_why(browser):
    found = browser.execute_script(
        """return [...document.querySelectorAll('.judged')].map(judged => {
            const whys = [], verdicts = [...judged.querySelectorAll('.verdict')];
            for (let next = judged.nextElementSibling; next.matches('.why'); next = next.nextElementSibling)
                whys.push(next.innerText);
            return [...verdicts.map(verdict => verdict.textContent), whys];
        });"""
    )
    assert len(found) == 6
    kept = pd.read_csv(REPOSITORY / "results/tables/claims.csv", dtype=str)
    for letter, (verdict, controls, whys) in zip("abcdef", found):
        wanted = [verdict] * (verdict != "reproduced") + [controls] * (controls != "hold")
        assert len(whys) == len(wanted) and all(word in why for word, why in zip(wanted, whys)), letter
        failed = kept[(kept.claim == letter) & (kept.passed == "False")]
        text = "\n".join(whys)
        assert all(check in text for check in failed.check) and text.count("off by ") == len(failed), letter
    assert found[5] == ["reproduced", "hold", []] and "results/README.md" in found[0][2][0]


def test_prose_that_a_reason_leads_to_is_there():
    from test_documents import ANCHORS

    for letter, place in reasons.SECTIONS.items():
        assert place in ANCHORS[reasons.FINDINGS], letter


def point_at(browser, plots: str) -> list[str]:
    """Move the pointer over the first plot of a box, from the right, until a tip is shown; the lines of the tip."""
    from selenium.webdriver import ActionChains

    over = browser.find_element("css selector", f"{plots} .u-over")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", over)
    right, down = over.size["width"] // 2 - 4, over.size["height"] // 2 - 4
    for across, up in itertools.product(range(right, -right, -30), range(down, -down, -30)):
        ActionChains(browser, 0).move_to_element_with_offset(over, across, -up).perform()
        tip = browser.find_element("id", "tip")
        if tip.is_displayed():
            return tip.text.split("\n")
    return []


def test_a_point_of_the_scatter_says_its_numbers_and_leads_to_its_row(browser):
    from selenium.webdriver import ActionChains

    named, numbers, file = point_at(browser, "#against-plots")
    told = re.fullmatch(r"attack (\S+), ratio (\S+), shaping (\S+)", named)
    known, ours = map(float, re.match(r"published (\S+), ours (\S+) \(", numbers).groups())
    kept = pd.read_csv(REPOSITORY / "results/tables/indiscriminate.csv", dtype={"shaping": str})
    [row] = kept[(kept.attack == told[1]) & (kept.ratio == float(told[2])) & (kept.shaping == told[3])].itertuples()
    assert (row.published_best_acc, row.best_acc, row.source) == (known, ours, file) and row.verdict in numbers
    ActionChains(browser).click().perform()
    marked = browser.find_element("css selector", ".told")
    assert marked.is_displayed() and marked.text.startswith(" ".join(told.groups()))


def test_every_published_number_that_was_run_is_in_a_plot(browser):
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('#against-plots figure')].map(plot => plot.getAttribute('aria-label'))"
    )
    counts = {text.rpartition(": ")[0]: int(text.rpartition(": ")[2].split()[0]) for text in drawn}
    tables = {panel["table"] for panel in plots.against()}
    known = {
        (name, column)
        for name in tables
        for column in pd.read_csv(REPOSITORY / f"results/tables/{name}.csv", nrows=0)
        if column.startswith("published_") and column != "published_epoch"  # of models: when, not what
    }
    assert {(panel["table"], panel["published"]) for panel in plots.against()} == known and len(known) == 12
    for panel in plots.against():
        kept = pd.read_csv(REPOSITORY / f"results/tables/{panel['table']}.csv")
        both = kept[[panel["ours"], panel["published"]]].replace([np.inf, -np.inf], np.nan).dropna()
        assert counts[panel["title"]] == len(both) > 0, panel["title"]


def test_curves_show_accuracies_and_follow_the_choice(browser):
    from selenium.webdriver.support.ui import Select

    named, value, *_ = point_at(browser, "#curves-plots")
    assert re.match(r"attack label-flips, ratio ", named) and re.match(r"best acc 0\.9|published 0\.9", value)
    Select(browser.find_element("id", "measure")).select_by_visible_text("last epoch, mean over seeds")
    assert re.match(r"final acc mean 0\.9\d* \u00b1 0\.\d+", point_at(browser, "#curves-plots")[1])
    Select(browser.find_element("id", "measure")).select_by_index(0)


# --- that it asks for nothing ---


def test_kept_libraries_are_unaltered_and_their_licence_is_on_the_page(page):
    notes = (REPOSITORY / "reports/vendor/README.md").read_text()
    known = dict(re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", notes, re.MULTILINE))
    assert set(known) == {path.name for path in (REPOSITORY / "reports/vendor").glob("*.min.*")}
    for name, digest in known.items():
        assert hashlib.sha256((REPOSITORY / "reports/vendor" / name).read_bytes()).hexdigest() == digest
    assert "Copyright (c) 2022 Leon Sorokin" in page.read_text()


def test_the_browser_runs_and_fetches_nothing_that_the_page_does_not_name(browser):
    """By the page's policy: a script that a text smuggled in would not run."""
    done = browser.execute_async_script(
        """const done = arguments[0], stopped = [];
        document.addEventListener('securitypolicyviolation', event => stopped.push(event.effectiveDirective));
        const script = document.createElement('script');
        script.textContent = 'window.taken = true';
        document.body.append(script);
        const image = document.createElement('img');
        image.src = 'https://example.org/x.png';
        const told = () => done([stopped.sort(), window.taken]);
        fetch('https://example.org/').catch(() => {}).then(() => setTimeout(told, 100));"""
    )
    assert done == [["connect-src", "img-src", "script-src-elem"], None]
    browser.get_log("browser")  # what it says of that


def test_it_prints_with_every_table_open(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(details => { details.open = false; })")
    printed = base64.b64decode(printed_page(browser))
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 20
    assert browser.execute_script("return [...document.querySelectorAll('details')].every(details => details.open)")


def printed_page(browser) -> str:
    """The page as a PDF: by the browser's own command, which is not given up after ten seconds as WebDriver's is."""
    return browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
