"""Folded results: nothing is lost, both forms are read alike, and kills, other processes and damage do no harm."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, TRAIN, refused

from command_line import BadInput
from files import Lock, Unreadable, write_csv
from results import cells, certificates, fold, folded, layout
from results import lines as plain

HEADER = ("epoch", "n_poison", "baseline_acc", "test_acc", "train_acc_clean", "train_acc_poison", "epsilon")


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A results folder of one's own, in this process too."""
    monkeypatch.setattr(layout, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(layout, "ANALYSIS", tmp_path / "results/analysis")
    return tmp_path / "results"


def training(clip_norm=None, seed=215, attack="label-flips", **more) -> dict:
    """Settings of a poisoned training."""
    shaping = {"shaping": "undefended", "kind": "undefended"}
    if clip_norm:
        shaping = {"shaping": f"{clip_norm:g}", "kind": "clip", "clip_norm": clip_norm}
    model = layout.seeded("vanilla_lr" if clip_norm is None else f"dp_lr_{clip_norm}", seed)
    return {
        "dataset": "fashion_mnist_3_4.1.0", "network": "lr", "seed": seed, **shaping, "model": model, "attack": attack,
        "poison_set": layout.seeded("flips_0.4", seed), "poison_sha256": "0" * 64,
        "poison": {"ratio": 0.4, "note": "12"}, "n_poison": 4320,
        "clean_rows": 10800, "ratio": 0.4, "start": "scratch", "baseline": "kept",
        "baseline_acc": 0.955, "dump": None, **more,
    }  # fmt: skip


def trial(target: int, mode="oneshot") -> dict:
    """Settings of a target's trials."""
    return {
        "dataset": "purchases-cj", "seed": 215, "epochs": 50, "attack": "clean-labels", "mode": mode, "target": target,
        "target_class": 4, "budget": "0.1_2000", "model": "vanilla_lr_100", "stop_at_first": True, "dump": None,
    }  # fmt: skip


def write(settings: dict, value: float = 0.9, extracts: bool = False):
    path = layout.cell_file(settings)
    cells.write(
        path,
        HEADER,
        [(1, 9, 0.955, value, "nan", 0.1, "inf"), (2, 9, 0.955, 1e-05, 0.1, 1, 7.5)],
        settings,
        {"wall_seconds": 1.5},
    )
    if extracts:
        names = (layout.MAGNITUDES, layout.ORIENTATIONS, layout.PER_EXAMPLE)
        for name in names:
            write_csv(
                path.with_name(name), ("epoch", "q05") if name == layout.PER_EXAMPLE else None, [(1, value), (2, 0.25)]
            )
        cells.add(path.parent, names)
    return path


def several() -> list:
    """Results of every kind, two seeds of each training."""
    found = [write(training(clip_norm, seed), seed / 1000) for clip_norm in (None, 1.0) for seed in (215, 3)]
    found += [write(trial(target, mode)) for target in (7, 12) for mode in ("oneshot", "multipoison")]
    poison = {"task": "pairs_of_100", "alpha": 0.4}
    recorded = [
        training(attack="collision", poison=poison, dump="npz", poison_set="pairs_of_100_alpha_0.4"),
        training(attack="slabs", dump="csv", seed=4),
    ]
    return found + [write(settings, extracts=True) for settings in recorded]


def everything() -> dict:
    """All that can be read of each result."""
    return {result.path: (result.run, result.texts) for result in cells.read_all()[0]}


def test_folded_results_are_read_as_they_were(ground):
    paths = several()
    before = everything()
    assert set(before) == set(paths) and cells.read_all()[1] == []
    run_fold()
    assert everything() == before and cells.read_all()[1] == []
    left = {str(path.relative_to(ground)) for path in ground.rglob("*") if path.suffix in (".csv", ".json")}
    assert left == {
        "ipoisoning/label-flips/runs.csv", "ipoisoning/label-flips/seeds.csv",
        "ipoisoning/label-flips/flips_0.4/vanilla_lr/attack_results.csv",
        "ipoisoning/label-flips/flips_0.4/dp_lr_1.0/attack_results.csv",
        *(f"tpoisoning/clean-labels/{mode}/runs.csv" for mode in ("oneshot", "multipoison")),
        *(f"tpoisoning/clean-labels/{mode}/purchases-cj/vanilla_lr_100/0.1_2000/trials.csv" for mode in
          ("oneshot", "multipoison")),
        *(f"analysis/{kind}/{name}.csv" for kind in ("collision", "ipoisoning") for name in ("runs", "examples")),
        *(f"analysis/collision/pairs_of_100/fashion_mnist_3_4.1.0/alpha_0.4/vanilla_lr/{name}" for name in
          ("analysis_results.csv", "mextracts_epoch.csv", "aextracts_epoch.csv")),
        *(f"analysis/ipoisoning/slabs/flips_0.4_seed_4/vanilla_lr_seed_4/{name}" for name in
          ("analysis_results.csv", "mextracts_epoch.csv", "aextracts_epoch.csv")),
    }  # fmt: skip
    for path, (run, _) in before.items():
        assert cells.finished(path, run["settings"]) and not cells.finished(path, {**run["settings"], "epochs": 7})
    recorded = next(path for path in paths if "collision" in path.parts)
    assert cells.extract(recorded.parent, layout.PER_EXAMPLE) == before[recorded][1][layout.PER_EXAMPLE]
    stamps = {path: path.stat().st_mtime_ns for path in ground.rglob("*") if path.is_file()}
    run_fold()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps  # nothing is left to fold


def run_fold():
    sys.argv[1:] = []
    fold.main()


def test_values_keep_their_types(ground):
    odd = {
        "text": "4",
        "number": 4,
        "float": 4.0,
        "tiny": 1e-05,
        "truth": True,
        "none": None,
        "quoted": '"a, b"',
        "list": [1, 2],
    }
    path = write(
        training(seed=3, poison={**odd, "nan_text": "nan"}, **{f"own_{name}": value for name, value in odd.items()})
    )
    settings = cells.find(path).settings
    run_fold()
    assert not path.exists() and cells.find(path).settings == settings
    empty = write(training(seed=4, poison={}))
    run_fold()
    assert cells.find(empty).settings["poison"] == {}


def test_a_result_that_is_made_again_stands_for_the_folded_one(ground):
    path = write(training(seed=3), 0.9)
    write(training(2.0, seed=3), 0.7)
    run_fold()
    write(training(seed=3, epochs=99), 0.8)
    assert cells.find(path).settings["epochs"] == 99 and len(everything()) == 2
    run_fold()
    assert not path.exists() and cells.find(path).settings["epochs"] == 99 and ",0.8," in cells.find(path).text
    numbers = folded.numbers(layout.runs_file(path))
    assert sorted(numbers.values()) == [1, 2]
    write(training(1.0, seed=3))
    run_fold()
    later = folded.numbers(layout.runs_file(path))
    assert later.pop("flips_0.4_seed_3/dp_lr_1.0_seed_3/attack_results.csv") == 3 and later == numbers


def test_a_kill_at_any_write_or_deletion_loses_nothing(ground, monkeypatch):
    several()
    before = everything()
    left, unlink = [0], type(ground).unlink

    def dying(self, *arguments, **more):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        unlink(self, *arguments, **more)

    original = folded.writing
    for moment in (1, 4, 9):
        left[0] = moment
        monkeypatch.setattr(type(ground), "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            run_fold()
        monkeypatch.setattr(type(ground), "unlink", unlink)
        assert everything() == before and cells.read_all()[1] == []

    def full(path, mode="w"):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(folded, "writing", full)
    write(training(8.0, seed=3))
    with pytest.raises(OSError, match="No space"):
        run_fold()
    monkeypatch.setattr(folded, "writing", original)
    assert {path: everything()[path] for path in before} == before
    run_fold()
    assert {path: everything()[path] for path in before} == before and len(everything()) == len(before) + 1


def test_folding_again_does_not_drop_what_is_missing_for_the_moment(ground):
    kept = write(training())
    write(training(1.0, seed=3))
    run_fold()
    text = kept.read_text()
    kept.unlink()
    write(training(2.0, seed=3))
    with pytest.raises(BadInput, match="restore what is missing"):
        run_fold()
    kept.write_text(text)
    run_fold()
    assert len(everything()) == 3


def test_numbers_that_a_merge_made_equal_are_given_anew(ground):
    paths = [write(training(clip_norm)) for clip_norm in (None, 1.0)]
    run_fold()
    table = layout.runs_file(paths[0])
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *("1," + line.partition(",")[2] for line in lines[1:])]) + "\n")
    write(training(2.0))
    run_fold()
    assert sorted(folded.numbers(table).values()) == [1, 2, 3] and len(everything()) == 3


def test_a_finished_result_is_not_replaced_by_one_of_other_settings(ground):
    path, known = write(training()), training()
    run_fold()
    cells.check_free(path, known)
    cells.check_free(path, {**known, "poison_sha256": "1" * 64})  # crafted on another machine
    with pytest.raises(BadInput, match="holds a result with another poison .*rename the poison file"):
        cells.check_free(path, {**known, "poison": {}})


@pytest.mark.parametrize("what", ["seeds.csv", "runs.csv", "trials.csv", "examples.csv"])
def test_damaged_tables_are_noticed(what, ground):
    several()
    run_fold()
    table = next(path for path in sorted(ground.rglob(what)))
    whole, results = table.read_text(), everything()
    cut = whole.rstrip("\n").rpartition("\n")[0] + "\n"  # a line less
    for content in (cut, whole[: len(whole) // 2], whole.replace("0.955", "0.956").replace("0.25", "0.26"), ""):
        table.write_text(content)
        assert content != whole
        found, left_out = cells.read_all()
        assert len(found) < len(results) and all(results[result.path] == (result.run, result.texts) for result in found)
        assert what == "runs.csv" or left_out and all("damaged" in why for _, why in left_out)


def test_a_copy_or_a_result_in_a_foreign_place_is_named(ground):
    path = write(training())
    copy = path.parent.with_name("vanilla_lr_300_40_0.02")
    shutil.copytree(path.parent, copy)
    found, left_out = cells.read_all()
    assert [result.path for result in found] == [path]
    ((place, why),) = left_out
    assert place == copy / path.name and str(path.relative_to(ground)) in why and "misplaced" in why


def test_a_sweep_that_is_running_is_left_alone(workplace):
    workplace.results.mkdir()
    lock = Lock(workplace.results / "train.lock")
    assert lock.take(7)
    message = refused(workplace.run("python3", "-m", "results.fold"))
    assert "a sweep is running" in message and "again" in message
    lock.release(7)
    workplace.succeed("python3", "-m", "results.fold")


def test_the_kept_results_are_folded_and_whole():
    """The repository's own: few enough files, all of them read, and the paper's paths where they were."""
    count = "from results import cells; print(*map(len, cells.read_all()))"
    done = subprocess.run([sys.executable, "-c", count], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found, left_out = map(int, done.stdout.split())
    assert found >= 6879 and left_out == 0
    for folder in {path.parents[3] for path in (REPOSITORY / "results/tpoisoning").rglob("trials.csv")}:
        runs = set(pd.read_csv(folder / "runs.csv", dtype=str).run)
        for path in folder.rglob("trials.csv"):
            assert set(pd.read_csv(path, dtype=str).run) <= runs, path  # no lines of runs that are gone
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode == 0:
        assert len(listed.stdout.split("\n")) - 1 <= 1500
    kept = REPOSITORY / "results/ipoisoning/label-flips/fashion_mnist_3_4.1.0_random_0.4"
    assert (kept / "dp_lr_300_40_0.01_1000.0_1e-05_4.0_0.025/attack_results.csv").is_file()


@pytest.mark.slow
def test_a_sweep_goes_on_from_folded_results(workplace):
    command = (*TRAIN, "--undefended", "--epochs", "2", "--poison")
    flips = REPOSITORY / "datasets/poisons/indiscriminate/label-flips/fashion_mnist_3_4.1.0_random_0.05.npz"
    kept = {"MODELS": REPOSITORY / "models"}
    for seed in ("215", "7"):
        workplace.succeed(*command, flips, "--clip-norm", "1", "--seed", seed, **kept)
    before = {path: path.read_text() for path in workplace.results.rglob("attack_results.csv")}
    assert len(before) == 4
    workplace.succeed("python3", "-m", "results.fold")
    assert len(list(workplace.results.rglob("attack_results.csv"))) == 2 and not list(
        workplace.results.rglob("run.json")
    )
    for seed in ("215", "7"):
        again = workplace.succeed(*command, flips, "--clip-norm", "1", "--seed", seed, **kept)
        assert "2 trainings finished before" in again.stderr
    workplace.succeed(*command, flips, "--clip-norm", "1", "4", "--seed", "7", **kept)  # a stack is trained whole
    assert len(list(workplace.results.rglob("run.json"))) == 1
    workplace.succeed("python3", "-m", "results.fold")
    assert not list(workplace.results.rglob("run.json"))


def test_a_result_with_other_columns_than_its_table_stays_in_files(ground):
    folded_one, other = training(1.0, seed=3), training(seed=3)
    write(folded_one)
    path = layout.cell_file(other)
    cells.write(path, (*HEADER, "more"), [(1, 9, 0.955, 0.9, 0.9, 0.1, "inf", 2)], other, {})
    before = everything()
    run_fold()
    assert everything() == before and cells.read_all()[1] == []
    assert path.is_file() and layout.run_file(path).is_file()
    assert not layout.cell_file(folded_one).exists()


def test_what_is_wrong_with_a_folded_result_is_said(ground):
    write(training(seed=3), 0.25)
    kept = write(training(seed=215))
    run_fold()
    table = ground / "ipoisoning/label-flips/seeds.csv"
    table.write_text(table.read_text().replace("0.25", "0.26"))
    kept.unlink()
    found = dict(cells.read_all()[1])
    assert "its SHA-256 is not the one in runs.csv" in found[layout.cell_file(training(seed=3))]
    assert found[layout.cell_file(training(seed=3))].startswith("damaged: ")
    assert found[kept].startswith("damaged") and "runs.csv" in found[kept] and "SHA-256" not in found[kept]


def test_files_are_named_and_read_in_their_order_whatever_a_folder_says(ground, monkeypatch):
    for name in ("tpoisoning/b.txt", "ipoisoning/z.txt", "analysis/y.txt", "analysis/a.txt"):
        (ground / name).parent.mkdir(parents=True, exist_ok=True)
        (ground / name).touch()
    named = [path for path, _ in cells.read_all()[1]]
    assert named == sorted(named) and len(named) == 4
    paths = [ground / name for name in ("c.csv", "a.csv", "b.csv", "d.csv")]

    def read_one(path):
        if path.name in ("d.csv", "b.csv"):
            raise Unreadable("damaged")
        return pd.DataFrame({"name": [path.stem]})

    found, damaged = plain.read_all(paths, read_one, ["name"])
    assert found.name.tolist() == ["a", "c"] and [path.stem for path, _ in damaged] == ["b", "d"]
    crafted = [ground / f"ipoisoning/{name}/crafting.csv" for name in "acb"]
    monkeypatch.setattr(Path, "glob", lambda *_: iter(crafted))
    assert layout.crafting_files() == sorted(crafted)


def test_certificates_are_written_in_their_columns_and_sorted(ground):
    file = certificates.path("mine", "stability")
    blank = {plain.TEXT: "x", plain.FLAG: False}
    kinds = {name: certificates.KINDS[name] for name in certificates.FRONTIER}
    line = {name: blank.get(kind, 0) for name, kind in kinds.items()} | {"certificate": "stability", "dataset": "mine"}
    certificates.add(file, [dict(reversed({**line, "poisons": poisons}.items())) for poisons in (50, 10)])
    assert file.read_text().splitlines()[0] == ",".join(certificates.FRONTIER)
    certificates.add(file, [{**line, "poisons": 10, "certified_acc": 0.5}])  # in place of the one before
    found = certificates.read(file)
    assert found.poisons.tolist() == [10, 50] and found.certified_acc.tolist() == [0.5, 0]
