"""The page of the matrix in headless Chromium, opened from a file:// address: made of small tables by hand."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import chromium

from poisons import attacks
from reports import matrix_page
from results import layout

HOSTILE = "</script><script>document.title = 'taken'</script><b>$x_{$"  # markup, and what matplotlib takes for formulas
WHY = "the residual stayed at 0.44 of the clean gradient"
COMMAND = "python3 train.py --dataset subtask --network lr --shaping 'clip:1@5,phuber:2' --seed 1"
SHAPINGS = {  # kind, chosen, gain under attack, price on clean rows
    "undefended": ("undefended", True, 0.0, 0.0), "0.1": ("clip", True, 0.031, -0.004),
    "4": ("clip", False, 0.012, -0.001), "phuber:2": ("phuber", True, 0.14, 0.0),
    "linear": ("linear", False, 0.1, 0.002),
    "clip:1@5,phuber:2": ("clip,phuber", True, -0.12, 0.01), HOSTILE: ("own", True, -0.03, 0.002),
}  # fmt: skip
COLUMNS = {  # attack, ratio, adaptive, measure
    "none": ("none", 0.0, "", "accuracy"), "label-flips 0.1": ("label-flips", 0.1, "", "accuracy"),
    "slabs 0.4": ("slabs", 0.4, "", "accuracy"), "insertion 0.01": ("insertion", 0.01, "", "success"),
    "slabs-own 0.4": ("slabs", 0.4, "own", "accuracy"), "mine 0.1": ("mine", 0.1, "own", "accuracy"),
    "worst adaptive 0.1": ("model-targeted", 0.1, "transfer", "accuracy"),
}  # fmt: skip
SEEDS, SHIFTS = [1, 2, 3], np.array([-0.01, 0.0, 0.01])
FAILED, ABSENT = ("linear", "slabs 0.4"), ("4", "slabs 0.4")


def cell(shaping: str, column: str, place: dict) -> dict:
    """A cell of three seeds; the one that failed has a reason and no number."""
    (kind, chosen, gain, price), (attack, ratio, adaptive, measure) = SHAPINGS[shaping], COLUMNS[column]
    made = {
        **place, "shaping": shaping, "kind": kind, "chosen": chosen, "column": column, "attack": attack,
        "ratio": ratio, "adaptive": adaptive, "measure": measure, "crafted_against": shaping if adaptive else "",
    }  # fmt: skip
    if (shaping, column) == FAILED:
        return {**made, "why": WHY, "finals": "", "gains": "", "seed_numbers": "", "command": "", "source": ""}
    gains = (-price if attack == "none" else gain) + SHIFTS / 10 * (shaping != "undefended")
    finals = 0.8 + gains + SHIFTS
    return {
        **made, "seeds": 3, "diverged": 0, "collapsed": float(gain < -0.1), "final_mean": finals.mean(),
        "final_ci95": 0.0248, "best_mean": 0.95, "best_ci95": np.nan, "gain_mean": gains.mean(), "gain_ci95": 0.0025,
        "seconds": 2.5, "finals": " ".join(f"{value:.4f}" for value in finals),
        "gains": " ".join(f"{value:.4f}" for value in gains), "seed_numbers": " ".join(map(str, SEEDS)), "why": "",
        "command": COMMAND, "source": f"ipoisoning/{attack}/seeds.csv; ipoisoning/{attack}/more #1.csv",
    }  # fmt: skip


def row(shaping: str, rank: int, place: dict) -> dict:
    kind, chosen, gain, price = SHAPINGS[shaping]
    return {
        **place, "shaping": shaping, "kind": kind, "chosen": chosen, "held_out_mean": 0.951,
        "chosen_by_halves": "0.1 and 1", "clean_price_mean": price, "clean_price_ci95": 0.001,
        "oblivious_gain_mean": gain, "oblivious_gain_ci95": 0.002, "oblivious_gain_worst": gain - 0.01,
        "oblivious_worst_column": "slabs 0.4", "adaptive_gain_worst": gain - 0.02,
        "adaptive_worst_column": "slabs-own 0.4", "price": np.nan if shaping == "4" else 0.1 + rank / 100,
        "attack_note": "weaker than label-flips 0.1: failed as attacks" if shaping == "4" else "", "rank": rank,
    }  # fmt: skip


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells and rows of two places: the second has two rows and two columns."""
    first = {"dataset": "subtask", "network": "lr", "epochs": 40, "start": "scratch"}
    second = {**first, "epochs": 20, "start": "retrain"}
    cells = [cell(*key, first) for key in itertools.product(SHAPINGS, COLUMNS) if key != ABSENT]
    cells += [cell(*key, second) for key in itertools.product(("undefended", "0.1"), ("none", "label-flips 0.1"))]
    rows = [row(shaping, rank, first) for rank, shaping in enumerate(SHAPINGS, 1)]
    rows += [row(shaping, rank, second) for rank, shaping in enumerate(("undefended", "0.1"), 1)]
    return pd.DataFrame(cells).astype({"seeds": "Int64", "diverged": "Int64"}), pd.DataFrame(rows)


VERDICTS = [{"question": "Does <one> help?", "answer": "no", "rule": "all gain", "evidence": "1 of 6 gains & 5 lose"}]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "RESULTS", tmp_path_factory.mktemp("results"))
        path = matrix_page.write(*tables(), VERDICTS, "Python 3.11.2")
        assert path == layout.RESULTS / "matrix.html"
        first = path.read_bytes()
        assert matrix_page.write(*tables(), VERDICTS, "Python 3.11.2").read_bytes() == first  # the same bytes twice
    return path


@pytest.fixture(scope="module")
def driver(page):
    with chromium(page) as driver:
        yield driver


@pytest.fixture
def browser(driver, page):
    """The page, opened anew; at the end, whether the browser complained or asked for anything else."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.set_window_size(1300, 800)
    driver.get(page.as_uri())
    yield driver
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    asked = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    assert driver.title == "Every gradient shaping against every attack"


def shown(browser, table: int = 0) -> list[str]:
    """The shapings of the rows that are shown, from the top."""
    rows = f"[...document.querySelectorAll('#matrix-{table} tbody tr')].filter(row => row.offsetHeight)"
    return browser.execute_script(f"return {rows}.map(row => row.cells[0].dataset.sort)")


def headings(browser) -> list[str]:
    """The columns that are shown, behind the summary's."""
    heads = "[...document.querySelectorAll('#matrix-0 thead tr:last-child th')].filter(head => head.offsetWidth)"
    return browser.execute_script(f"return {heads}.map(head => head.textContent.trim())")[7:]


def choose(browser, name: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", name)).select_by_visible_text(text)


def at(browser, shaping: str, column: str):
    """The cell of a shaping and a column, or the shaping's own (column: shaping)."""
    script = """const heads = [...document.querySelectorAll('#matrix-0 thead tr:last-child th')];
        const rows = [...document.querySelectorAll('#matrix-0 tbody tr')];
        const number = heads.findIndex(head => head.textContent.trim().startsWith(arguments[1]));
        return rows.find(row => row.cells[0].dataset.sort === arguments[0]).cells[number];"""
    return browser.execute_script(script, shaping, column)


def values(shapings: list[str], index: int) -> list[float]:
    return [SHAPINGS[shaping][index] for shaping in shapings]


def wait(holds) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(None, 5, 0.05).until(lambda _: holds())


def test_the_page_needs_no_other_file_and_links_to_no_site(page):
    html = page.read_text()
    assert not re.search(r"<link|@import|url\(|<script[^>]+src|<img[^>]+src=\"(?!data:image/png;base64,)|https?:", html)
    assert set(re.findall(r'href="([^"]+)"', html)) == {"report.html", "tables/matrix.csv", "tables/matrix_rows.csv"}
    assert html.count('<img src="data:image/png') == 2
    assert "&lt;one&gt;" in html and "1 of 6 gains &amp; 5 lose" in html and "rule" in html.lower()


def test_a_shaping_that_looks_like_markup_stays_a_text(browser, page):
    html = page.read_text()
    assert "<script>document.title" not in html and "&lt;script&gt;document.title" in html
    details = re.search(r'<script type="application/json" id="details">(.*?)</script>', html, re.S)[1]
    assert HOSTILE in {detail["title"] for detail in json.loads(details)}
    at(browser, HOSTILE, "slabs 0.4").click()
    assert browser.find_element("id", "title").text == f"{HOSTILE}, against slabs 0.4"


def test_only_chosen_values_and_what_they_are_compared_with_are_shown_at_first(browser):
    everything = list(SHAPINGS)
    assert shown(browser) == [name for name in everything if SHAPINGS[name][1]]
    assert browser.find_element("id", "count").text == "5 of 7 rows"
    browser.find_element("id", "chosen").click()
    assert shown(browser) == everything
    assert browser.find_element("id", "count").text == "7 of 7 rows"


def test_a_part_of_a_name_finds_its_rows(browser):
    browser.find_element("id", "chosen").click()
    browser.find_element("id", "find").send_keys("PHUBER")
    assert shown(browser) == [name for name in SHAPINGS if "phuber" in name]
    browser.find_element("id", "find").clear()
    assert shown(browser) == list(SHAPINGS)


def test_its_policy_lets_nothing_be_fetched(page):
    assert "default-src 'none'; img-src data:;" in page.read_text()


def test_cells_show_gain_in_points_accuracy_and_colour(browser):
    def told(shaping, column):
        found = at(browser, shaping, column)
        return found.text.split("\n"), found.get_attribute("class").split()

    assert told("0.1", "label-flips 0.1") == (["+3.1", ".831"], ["g6", "sure", "first"])
    assert told("0.1", "none") == (["+0.4", ".804"], ["g4", "sure", "first"])
    assert told("undefended", "slabs 0.4") == (["0.0", ".800"], ["g4"])
    assert told("clip:1@5,phuber:2", "slabs 0.4") == (["−12.0", ".680"], ["g0", "sure", "fallen"])
    browser.find_element("id", "chosen").click()
    assert told(*FAILED) == told(*ABSENT) == (["–"], ["gap"])
    assert told("4", "worst adaptive")[0] == ["−0.8*"] and told("4", "attacker's price") == (["–"], ["gap"])
    assert told("phuber:2", "attacker's price")[0] == [".140"]


def test_it_sorts_by_any_column_and_leaves_what_is_not_known_at_the_end(browser):
    browser.find_element("id", "chosen").click()
    heads = browser.find_elements("css selector", "#matrix-0 thead tr:last-child th")
    names = [head.text for head in heads]
    for name, index in (("label-flips 0.1", 2), ("clean price", 3)):
        order = sorted(SHAPINGS, key=lambda shaping, index=index: -SHAPINGS[shaping][index])
        heads[names.index(name)].click()
        wait(lambda order=order, index=index: values(shown(browser), index) == values(order, index))
        heads[names.index(name)].send_keys("\ue007")  # Enter: the other way round
        wait(lambda order=order, index=index: values(shown(browser), index) == values(order[::-1], index))
    heads[names.index("slabs 0.4")].click()
    wait(lambda: set(shown(browser)[-2:]) == {FAILED[0], ABSENT[0]})
    heads[names.index("slabs 0.4")].click()
    wait(lambda: shown(browser)[0] == "clip:1@5,phuber:2")
    assert set(shown(browser)[-2:]) == {FAILED[0], ABSENT[0]}
    browser.find_element("id", "chosen").click()
    assert shown(browser)[0] == "clip:1@5,phuber:2" and "4" not in shown(browser)  # order and filter keep each other


def test_it_filters_by_kind_and_by_attack(browser):
    assert len(headings(browser)) == len(COLUMNS)
    choose(browser, "kind", "clip")
    assert shown(browser) == ["0.1"]
    browser.find_element("id", "chosen").click()
    assert shown(browser) == ["0.1", "4"]
    choose(browser, "kind", "all kinds")
    assert shown(browser) == list(SHAPINGS)
    choose(browser, "attack", "slabs (oblivious)")
    assert headings(browser) == ["none", "slabs 0.4"]
    groups = browser.find_elements("css selector", "#matrix-0 thead tr:first-child th")
    assert [group.get_attribute("colSpan") for group in groups if group.is_displayed()] == ["1", "6", "1", "1"]
    assert at(browser, "0.1", "slabs 0.4").is_displayed() and not at(browser, "0.1", "slabs-own 0.4").is_displayed()
    choose(browser, "attack", "all adaptive attacks")
    assert headings(browser) == ["none", "slabs-own 0.4", "mine 0.1", "worst adaptive 0.1"]
    assert [group.text for group in groups if group.is_displayed()][1:] == ["overall", "clean", "adaptive attacks"]
    choose(browser, "attack", "all attacks")
    assert len(headings(browser)) == len(COLUMNS) and groups[-1].get_attribute("colSpan") == "3"


def test_a_select_switches_to_another_table(browser):
    assert shown(browser) and not shown(browser, 1)
    choose(browser, "place", "subtask, lr, 20 epochs, retrain")
    assert not shown(browser) and shown(browser, 1) == ["undefended", "0.1"]
    assert browser.find_element("id", "count").text == "2 of 2 rows"


def test_a_cell_opens_its_dialog_by_a_click_and_by_the_keyboard(browser):
    dialog = browser.find_element("id", "cell")
    assert not dialog.is_displayed()
    at(browser, "clip:1@5,phuber:2", "slabs-own 0.4").click()
    assert dialog.is_displayed()
    text = dialog.text
    assert text.startswith("close\nclip:1@5,phuber:2, against slabs-own 0.4")
    for name, value in (
        ("final accuracy", "0.6800 ± 0.0248"), ("best epoch's accuracy", "0.9500"),
        ("gain over undefended, points", "−12.0 ± 0.2"), ("collapsed, % of seeds", "100"),
        ("seconds a training", "2.5"), ("crafted against", "clip:1@5,phuber:2 (own)"),
    ):  # fmt: skip
        assert f"{name}\n{value}" in text
    seeds = [line.text.split() for line in browser.find_elements("css selector", "#seeds tbody tr")]
    assert seeds == [["1", "0.6690", "−12.1"], ["2", "0.6800", "−12.0"], ["3", "0.6910", "−11.9"]]
    assert browser.find_element("css selector", "pre code#command").text == COMMAND
    browser.find_element("id", "copy").click()
    assert browser.execute_script("return getSelection().toString()").strip() == COMMAND
    links = browser.find_elements("css selector", "#sources a")
    assert [link.get_dom_attribute("href") for link in links] == [
        "./ipoisoning/slabs/seeds.csv", "./ipoisoning/slabs/more%20%231.csv",
    ]  # fmt: skip
    assert not browser.find_element("id", "why").is_displayed()
    active = browser.switch_to.active_element
    active.send_keys("\ue00c")  # Escape
    assert not dialog.is_displayed()
    # the cell has the focus again: up one row, one column to the left
    for key in ("\ue013", "\ue012", "\ue007"):
        browser.switch_to.active_element.send_keys(key)
    assert browser.find_element("id", "title").text == "phuber:2, against insertion 0.01"
    assert "final success, less is better" in dialog.text
    browser.find_element("css selector", "#cell form button").click()
    assert not dialog.is_displayed()


def test_the_tab_key_reaches_one_cell_of_the_table_also_after_filtering(browser):
    reached = "return [...document.querySelectorAll('#matrix-0 tbody button')].filter(button => button.tabIndex === 0)"
    assert len(browser.execute_script(reached)) == 1
    choose(browser, "kind", "phuber")
    (button,) = browser.execute_script(reached)
    assert button.is_displayed() and "phuber:2" in button.text


def test_a_cell_that_failed_or_is_not_there_says_why(browser):
    browser.find_element("id", "chosen").click()
    at(browser, *FAILED).click()
    assert browser.find_element("id", "why").text == WHY
    assert [browser.find_element("id", name).is_displayed() for name in ("seeds", "again", "sources")] == [False] * 3
    browser.switch_to.active_element.send_keys("\ue00c")
    at(browser, *ABSENT).click()
    assert browser.find_element("id", "why").text.startswith("Not run")


def test_a_row_opens_what_is_known_of_it(browser):
    browser.find_element("id", "chosen").click()
    at(browser, "4", "shaping").click()
    text = browser.find_element("id", "cell").text
    assert "chosen by halves of the held-out rows\n0.1 and 1" in text and "clean price, points\n−0.1 ± 0.1" in text
    assert "worst adaptive gain, points\n−0.8 slabs-own 0.4" in text and "weaker than label-flips 0.1" in text


def test_each_attacker_is_told_in_the_heading_and_below_the_table(browser):
    threats = pd.read_csv(matrix_page.HERE / "threats.csv", keep_default_na=False).set_index("column")
    below = browser.find_element("css selector", ".threats").text
    heads = browser.find_elements("css selector", "#matrix-0 thead tr:last-child th")[7:]
    for head, name in zip(heads, ("none", "label-flips", "slabs", "insertion", "slabs-own", None, "worst adaptive")):
        if name is None:
            assert head.get_attribute("title") == "" and "threats.csv has no line for mine" in below
        else:
            sentences = threats.loc[name, ["knows", "threat"]]
            assert all(text in head.get_attribute("title") and text in below for text in sentences)


def test_every_attack_of_the_suite_has_a_threat_of_two_sentences():
    threats = pd.read_csv(matrix_page.HERE / "threats.csv", keep_default_na=False)
    named = {"none", "slabs-own", "gradient-canceling", "model-targeted", "worst adaptive", *attacks()}
    assert named - set(threats.column) == set() and threats.column.is_unique
    for text in (*threats.knows, *threats.threat):
        assert text[0].isupper() and text.endswith(".") and not re.search(r"[.!?] [A-Z]", text.replace("et al. ", ""))


def test_heading_and_first_column_stay_while_the_table_scrolls(browser):
    browser.set_window_size(500, 400)
    browser.find_element("id", "chosen").click()
    browser.execute_script("document.querySelector('.scroll.table').scrollIntoView()")
    places = """const box = document.querySelector('.scroll.table').getBoundingClientRect();
        const rows = ['thead', 'tbody'].map(part => document.querySelector(`#matrix-0 ${part} tr:last-child`).cells);
        const [head, name, cell] = [rows[0][8], rows[1][0], rows[1][8]].map(part => part.getBoundingClientRect());
        return [head.top - box.top, name.left - box.left, cell.right - box.left, cell.top - box.top];"""
    browser.execute_script("document.querySelector('.scroll.table').scrollTo(200, 120)")
    before = browser.execute_script(places)
    browser.execute_script("document.querySelector('.scroll.table').scrollTo(260, 150)")
    after = browser.execute_script(places)
    assert after[2] - before[2] == pytest.approx(-60, abs=1) and after[3] - before[3] == pytest.approx(-30, abs=1)
    assert after[:2] == pytest.approx(before[:2], abs=1) and after[0] < 60 and abs(after[1]) < 5


def test_a_phone_scrolls_the_table_and_not_the_page(browser):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    script = """const box = document.querySelector('.scroll.table');
        const widths = [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth];
        return [...widths, box.scrollWidth > box.clientWidth];"""
    assert browser.execute_script(script) == [390, 390, 390, True]
    browser.execute_script("document.querySelector('#place option').text += ', of a name longer than most'.repeat(3)")
    assert browser.execute_script(script)[0] == 390
    at(browser, "0.1", "none").find_element("css selector", "button").send_keys("\ue007")
    width = browser.find_element("id", "cell").size["width"]
    assert 300 < width <= 390 and browser.execute_script(script)[0] == 390


def luminance(colour: str) -> float:
    """Relative luminance of rgb(r, g, b), as WCAG 2 defines it."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(browser, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    grounds = """return arguments[0].map(selector => getComputedStyle(document.querySelector(selector))).map(
        style => [style.color, style.backgroundColor]);"""
    selectors = ["body", ".key.gap", *(f".key.g{number}" for number in range(9)), ".matrix thead th"]
    pairs = [[luminance(colour) for colour in pair] for pair in browser.execute_script(grounds, selectors)]
    assert (pairs[0][1] > 0.5) == (scheme == "light")
    for text, ground in pairs:
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5
    shades = [ground for _, ground in pairs[2:11]]  # from the worst to the best: away from zero, away from the page
    middle = np.abs(np.array(shades) - pairs[0][1])
    assert (np.diff(middle[:5]) < 0).all() and (np.diff(middle[4:]) > 0).all()


@pytest.mark.parametrize("fault", ["twice", "lost"])
def test_tables_that_do_not_fit_are_refused(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "RESULTS", tmp_path)
    cells, rows = tables()
    cells, rows = (pd.concat([cells, cells[:1]]), rows) if fault == "twice" else (cells, rows[1:])
    with pytest.raises(ValueError, match="two lines for one cell or row, or a cell of no row"):
        matrix_page.write(cells, rows, [], "")
    assert not list(tmp_path.iterdir())


def test_tables_may_say_no_more_of_a_place_than_data_and_network(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "RESULTS", tmp_path)
    cells, rows = (frame[frame.epochs == 40].drop(columns=["epochs", "start"]) for frame in tables())
    assert "<caption><span>subtask, lr: gain" in matrix_page.write(cells, rows, [], "").read_text()


def test_the_place_with_most_columns_is_first(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "RESULTS", tmp_path)
    cells, rows = tables()
    html = matrix_page.write(cells, rows[::-1], [], "").read_text()
    assert html.index("<h2>subtask, lr, 40 epochs") < html.index("<h2>subtask, lr, 20 epochs")


def test_a_matrix_without_cells_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "RESULTS", tmp_path)
    cells, rows = tables()
    html = matrix_page.write(cells[:0], rows[:0], [], "").read_text()
    assert "No cell of the matrix has been run." in html and "<table class" not in html
