"""Faults put into the suite are noticed, what changes nothing is not: whether tests/mutate.py can tell."""

from __future__ import annotations

import csv
import sys

import pytest

from tests import mutate

MODULE = """
\"\"\"Text with min(1, 2).\"\"\"
COLOURS = (1, 2)


def best(values: list[int] = (0, 1), keep=True) -> int | None:
    \"\"\"One more + text.\"\"\"
    if not values and keep:
        raise ValueError("1 + 1" + str(2))
    values.sort(reverse=True)
    axis.plot(values, color=3, alpha=0.5)  # a < b
    found = [value - 1 for value in values if value <= 3]
    return max(found, key=abs) + sum(found, 5)


if __name__ == "__main__":
    best(3)
"""


@pytest.fixture
def source(tmp_path) -> mutate.Source:
    (tmp_path / "module.py").write_text(MODULE)
    return mutate.Source(tmp_path, "module.py")


def test_faults_are_put_into_code_and_not_into_texts_types_and_looks(source):
    found = {(mutant.line, mutant.after) for mutant in mutate.mutants_of(source)}
    texts = {(line, after.replace("values", "v").replace("found", "f")) for line, after in found}
    assert {line for line, _ in texts} == {6, 8, 10, 11, 12, 13}
    assert {after for line, after in texts if line == 8} == {
        "if (v) and keep:", "if not v or keep:", "if (not v):", "if (keep):", "if (not (not v and keep)):"
    }  # fmt: skip
    assert {after for line, after in texts if line == 10} == {
        "pass", "v.sort()", "v.sort(reverse=False)", "v.sort(reverse=not True)"
    }  # fmt: skip
    assert {after for line, after in texts if line == 11} == {"pass # a < b"}
    assert {after.partition(" if ")[2] for line, after in texts if line == 12 and "value - 1 for" in after} == {
        "value < 3]", "value > 3]", "value <= 4]", "(not (value <= 3))]"
    }  # fmt: skip
    assert (13, "return min(f, key=abs) + sum(f, 5)") in texts and (13, "return max(f) + sum(f, 5)") in texts
    assert (13, "return max(f, key=abs) + sum(5, f)") in texts and (13, "return (sum(f, 5))") in texts


def test_a_draw_is_the_same_again_and_has_every_kind_and_module(source):
    names = ["models/stack.py", "poisons/victims.py", "results/lines.py"]
    sources = [source, *(mutate.Source(mutate.REPOSITORY, name) for name in names)]
    drawn, again, other = (mutate.sampled(sources, 60, seed) for seed in (1, 1, 2))
    assert drawn == again != other and len(drawn) == 60 and {mutant.module for mutant in drawn} == {"module.py", *names}
    assert {mutant.kind for mutant in drawn} > {"comparison", "constant", "keyword", "operand", "statement", "swap"}
    for mutant in drawn:
        text = next(one.text for one in sources if one.module == mutant.module)
        compile(mutate.mutated(text, mutant), mutant.module, "exec")
        assert mutant.before != mutant.after and mutate.mutated(text, mutant) != text


def test_every_known_fault_still_has_a_place_in_the_modules():
    names = [name for name, *_ in mutate.KNOWN]
    sources = {name: mutate.Source(mutate.REPOSITORY, name) for _, name, *_ in mutate.KNOWN}
    assert len(mutate.known(sources, names)) == len(names)


def test_known_faults_are_killed_and_what_changes_nothing_survives(workplace):
    """One fault in each package, by one of its tests each; the same command again has nothing to do."""
    names = ["largest-order", "own-classes", "swapped-extracts", "unrun-passes"]
    work = workplace.folder / "work"
    words = (sys.executable, "-m", "tests.mutate", "--mutants", "0", "--work", work, "--known", "same", *names)
    done = workplace.succeed(*words)
    with open(work / "mutants.csv", newline="") as stream:
        lines = {line["name"]: line for line in csv.DictReader(stream)}
    assert {name: line["state"] for name, line in lines.items()} == {
        "same": "survived", **dict.fromkeys(names, "killed")
    }  # fmt: skip
    tests = {name: test for name, *_, test in mutate.KNOWN}
    for name in names:
        assert lines[name]["by"].partition("[")[0] == f"tests/{tests[name]}"
    shown = [line.split() for line in done.stdout.splitlines()]
    assert ["all", "5", "4", "0", "1", "0.000"] in shown and ["models/noise.py", "1", "0", "0", "1", "0.000"] in shown
    assert "equivalent: models/noise.py" in done.stdout and "does not depend on their order" in done.stdout
    again = workplace.succeed(*words)
    assert "/5 " not in again.stdout and again.stdout in done.stdout
    module = work / "copy" / "models" / "noise.py"
    assert module.read_bytes() == (mutate.REPOSITORY / "models" / "noise.py").read_bytes()
