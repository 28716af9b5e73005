"""What the page says beside its tables: by how much checks miss, why verdicts are what they are, where results are
from.
"""

from __future__ import annotations

import subprocess

import pandas as pd
import pytest
from conftest import REPOSITORY
from test_report import cell

from files import read_json, write_json
from reports import claims, misses, origins, page, reasons
from results import layout

ROWS = pd.DataFrame(
    {
        "best_acc": [0.95, 0.90, 0.94, 0.93], "alone": 0.93, "chance_gain": 0.01, "share": [0.2, 0.5, 0.9, 0.8],
        "share_alone": [0.5, 0.5, 0.5, 1.0], "called": ["one", "two", "three", "four"], "source": list("abcd"),
    }
)  # fmt: skip


def test_the_farthest_row_is_told_with_its_numbers_and_file():
    miss = misses.worst("best_acc > alone + chance_gain", ROWS)
    assert (miss.failed, miss.rows, miss.row, miss.source) == (3, 4, "two", "b")
    assert miss.text == (
        "best accuracy is 0.9, and must be above that of undefended training plus what seeds bring by chance, 0.94:"
        " off by 0.04"
    )
    assert misses.worst("best_acc > 0.5", ROWS) is None
    assert misses.worst("best_acc <= 0.93", ROWS).text == "best accuracy is 0.95, and must be at most 0.93: off by 0.02"


def test_of_several_comparisons_the_one_that_fails_is_told():
    miss = misses.worst("best_acc > 0.5 and share <= 0.5 * share_alone", ROWS)
    assert (miss.failed, miss.row, round(miss.asked, 4)) == (3, "three", 0.25)
    assert miss.text.endswith("at most 0.5 x that of undefended training, 0.25: off by 0.65")


def test_a_number_that_is_not_there_fails_and_is_told_last():
    rows = ROWS.assign(best_acc=[0.95, None, 0.90, 0.99])
    assert misses.worst("best_acc > 0.92", rows).row == "three"
    alone = misses.worst("best_acc > 0.92", rows.iloc[[1]])
    assert alone.failed == 1 and alone.row == "" and "nan" in alone.text


@pytest.mark.parametrize("line", claims.lines(), ids=lambda line: f"{line.claim} {line.check[:40]}")
def test_every_check_can_be_taken_apart(line):
    """Each comparison has one sign, and its names have words."""
    for comparison in line.passes.split(" and "):
        names = pd.Series([comparison]).str.findall(r"[a-z]\w*")[0]
        assert set(names) <= set(misses.NAMES), comparison
        rows = pd.DataFrame({name: [1.0 + number] for number, name in enumerate(names)}).assign(source="x")
        assert rows.eval(comparison).all() == (misses.worst(comparison, rows) is None)


def claim(passed: list, controls: list, seeds: list | None = None, **words) -> dict:
    """A claim that was judged; passed: of its checks."""
    kinds = [(claims.PUBLISHED, one) for one in passed] + [("control", one) for one in controls]
    checks = [
        dict.fromkeys(claims.COLUMNS, "") | {"kind": kind, "check": f"check {number}", "passed": one, "source": "x.csv"}
        for number, (kind, one) in enumerate(kinds)
    ]
    by_seed = pd.DataFrame([("c", *seed) for seed in seeds or []], columns=claims.SEED_COLUMNS)
    return {"letter": "c", "checks": checks, "by_seed": by_seed, **words}


def test_a_verdict_that_is_whole_needs_no_reason():
    assert reasons.of(claim([True], [True], verdict="reproduced", under_controls="hold")) == []


def test_reasons_count_what_fails_and_what_was_not_run():
    judged = claim([True, False, None], [None, None], verdict="reproduced in part", under_controls="not run")
    first, second = reasons.of(judged)
    assert first.head.startswith("Failed: 1 of 2 checks. 1 more could not be made") and len(first.failed) == 1
    assert first.failed[0][0] == "check 1" and first.failed[0][2] == "x.csv"
    assert second.head.startswith("None of the 2 controls could be made") and second.failed == []


def test_a_verdict_by_seeds_says_what_the_seeds_say():
    seeds = [(1, 0, 2, "not reproduced"), (2, 1, 2, "reproduced in part"), (3, 0, 2, "not reproduced")]
    [only] = reasons.of(claim([True, False], [True], seeds, verdict="not reproduced", under_controls="hold"))
    assert f"By seed {layout.SEED} alone the word would be: reproduced in part." in only.head
    assert "Over 3 seeds 0.3 of the 2 checks pass in the mean, and 1 at most, in 1 of them" in only.head


# --- where results are from ---


def made_on(path, **machine) -> None:
    """Let a result say what it was made on."""
    run = read_json(path.with_name("run.json"))
    run.pop("checksum", None)
    write_json(path.with_name("run.json"), {**run, "machine": machine})


def page_of(workplace) -> str:
    workplace.succeed("python3", "report.py")
    return (workplace.results / "report.html").read_text()


def test_the_page_says_what_results_were_made_on_and_is_the_same_twice(workplace):
    head = subprocess.run(
        ["git", "-C", REPOSITORY, "log", "-1", "--format=%h %cs"], capture_output=True, text=True, check=True
    )
    commit, day = head.stdout.split()
    made_on(cell(workplace, [0.93], shaped="0.1"), cpu="A <b>processor</b>", commit=f"{commit}+")
    made_on(cell(workplace, [0.93], shaped="1"), cpu="A <b>processor</b>", gpu="H100", commit="HEAD --output=x")
    cell(workplace, [0.93], shaped="2")
    html = page_of(workplace)
    assert f"<dt>date</dt><dd>{day} or later" in html
    assert "<dd>A &lt;b&gt;processor&lt;/b&gt; (2)</dd>" in html and "<dd>H100 (1)</dd>" in html
    assert f"{commit}+ (1)" in html and "<dt>results that do not say</dt><dd>1</dd>" in html
    assert "3 trainings, 0 gradient analyses, 0 targets" in html
    assert page_of(workplace) == html


def test_what_no_result_says_is_not_recorded(workplace):
    cell(workplace, [0.93], shaped="0.1")
    html = page_of(workplace)
    for name in ("date", "commit", "processor", "GPU"):
        assert f"<dt>{name}</dt><dd>{origins.UNKNOWN}</dd>" in html


def test_a_commit_that_is_none_asks_git_for_nothing(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("git was asked"))
    assert origins.date(["--output=x", "HEAD", "", "abc"]) == ""


def test_the_policy_names_each_script_and_no_other():
    told = page.policy("a {}", ["one()", "two()"])
    assert told.count("'sha256-") == 3 and "unsafe" not in told and told.startswith("default-src 'none';")
    assert page.policy("a {}", ["one()", "two();"]) != told
