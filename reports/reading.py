"""Reading results into data frames, and what is left out, with the reason.

`results.cells` finds the results that are whole and lie where their settings say. Left out here are those that lack
what every result has, and those that were made with other versions: numbers that stand side by side are of one set of
versions of TensorFlow and NumPy, that of most results (a last digit may depend on them).
"""

from __future__ import annotations

import argparse
import functools
import io
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from files import printable
from models.shaping import shaping
from poisons import attacks
from reports import identity, with_columns
from results import certificates, layout, nulls
from results import described as described_data
from results.cells import Unfinished, read_all
from results.folded import Result

TRIALS = "attack_w"
NORMS = ["clean_norm", "poison_norm"]
QUANTILES = [f"{name}_q{part:02}" for name in (*NORMS, "poison_cosine") for part in (5, 25, 50, 75, 95)]
COLUMNS = {  # of the CSV files of each kind of result: those that must be there, numbers all but success
    layout.ATTACK_RESULTS: ["epoch", "baseline_acc", "test_acc"],
    layout.ANALYSIS_RESULTS: ["epoch", "baseline_acc", "test_acc"],
    TRIALS: ["target", "poison", "success", "epoch"],
}
MEANS = [",".join(NORMS), "cosine"]  # headers for the extracts, which have none
BACKDOOR = ["baseline_backdoor_acc", "backdoor_acc", "backdoor_acc_other_classes"]
MAY_HAVE = {
    TRIALS: ["moved", "share_of_way", "relative_feature_distance"],
    layout.ANALYSIS_RESULTS: ["n_poison", *NORMS, "cosine", *BACKDOOR, *QUANTILES],
}
NUMBERS = ["batch_size", "epochs", "learning_rate", "seed", "noise_multiplier", "clean_rows", "baseline_acc"]
TEXTS = ["dataset", "network", "engine", "optimizer", "shaping", "kind", "attack"]
MORE_NUMBERS = [
    "clip_norm",
    "n_poison",
    "ratio",
    "target",
    "base_class",
    "target_class",
    "poison.alpha",
    "poison.patch",
]
MORE_TEXTS = ["poison_set", "poison.task", "start", "baseline", "mode", "budget", "model"]
NEEDED = (  # by a poisoned training, and by the trials of a target
    ["poison_set", "poison_sha256", "poison", "n_poison", "ratio", "start", "baseline"],
    ["mode", "target", "base_class", "target_class", "budget", "poison_sha256"],
)
MACHINE = ["cpu", "gpu", "commit"]  # of what a run.json says of the machine
ABOUT = ["path", "folder", "source", "extracts", "identity", "default_set", "versions", "poison"]


@dataclass
class Part:
    """The results of one kind.

    cells: a row each, with its settings as columns (an undefended clip_norm is infinite; those of the poison set are
    poison.<name>), where it lies, what `reports.identity` says of it, and of trainings best_acc, final_acc, epochs_acc
    (their mean) and diverged; lines: of their CSV files, indexed by the row of `cells`, with the extracts of analyses.
    """

    cells: pd.DataFrame
    lines: pd.DataFrame


@dataclass
class Results:
    """What a results folder holds; nulls, data: the lines of `results.nulls` and `results.described`; certified,
    held_against: those of certificates and of attacks on them (`results.certificates`); left_out: files from there,
    with the reason; versions: those of all others.
    """

    trainings: Part
    analyses: Part
    trials: Part
    nulls: pd.DataFrame
    data: pd.DataFrame
    certified: pd.DataFrame
    held_against: pd.DataFrame
    left_out: list[tuple[str, str]]
    versions: str


def read() -> Results:
    """Read every result below the results folder."""
    whole, left_out = read_all()
    kinds = {kind: [] for kind in COLUMNS}
    for result in whole:
        try:
            kinds[kind_of(result)].append((result, text_of(result)))
        except Unfinished as error:
            left_out.append((result.path, str(error)))
    (of_nulls, damaged), (of_data, more_damaged) = nulls.read_all(), described_data.read_all()
    certified, held_against, still_more = certificates.read_all()
    left_out += damaged + more_damaged + still_more
    parts = [frames(kind, found) for kind, found in kinds.items()]
    versions = pd.concat([part.cells.versions for part in parts]).mode()  # sorted
    versions = versions.iloc[-1] if len(versions) else ""
    named = {}
    for path, why in left_out:
        named.setdefault(place(path), printable(why))
    named_out = list(named.items())
    for part in parts:
        others = "made with " + part.cells.versions + f", unlike most results ({versions})"
        faults = part.cells.fault.where(part.cells.fault.notna() | (part.cells.versions == versions), others).dropna()
        named_out += zip(part.cells.path[faults.index], faults)
        part.cells, part.lines = part.cells.drop(faults.index), part.lines[~part.lines.index.isin(faults.index)]
    trainings, analyses, trials = parts
    return Results(trainings, analyses, trials, of_nulls, of_data, certified, held_against, sorted(named_out), versions)


def place(path: Path) -> str:
    """A file, from the results folder, in plain characters."""
    return printable(os.path.relpath(path, layout.RESULTS))


def kind_of(result: Result) -> str:
    return result.path.name if result.path.name in COLUMNS else TRIALS


def text_of(result: Result) -> str:
    """A result's CSV text, an analysis' with its extracts as further columns; `Unfinished` where it lacks anything."""
    settings, kind, run_name = result.settings, kind_of(result), layout.run_file(result.path).name
    missing = [name for name in (*NUMBERS, *TEXTS, *NEEDED["mode" in settings]) if name not in settings]
    if missing:
        raise Unfinished(f"its {run_name} does not say: {', '.join(missing)}")
    of_shaping = settings_of_shaping(settings["shaping"])
    if of_shaping is None:
        raise Unfinished("of a kind of shaping that is not known here: name its file with --shaping-file")
    odd = [name for name, value in of_shaping.items() if settings.get(name) != value]
    if odd:
        raise Unfinished(f"damaged: by its {run_name} its shaping and its {odd[0]} contradict each other")
    if not all(len(text) <= MOST_TEXT and PLAIN.fullmatch(text) for text in result.texts.values()):
        raise Unfinished("damaged: it holds something else than numbers and words, or a line that does not end")
    lines = result.text.split("\n")[:-1]
    names = lines[0].split(",") if lines else []
    if len(set(names)) < len(names) or "number" in names:
        raise Unfinished("damaged: its columns do not have names of their own")
    attack = attacks().get(settings["attack"])
    needed = [*COLUMNS[kind], *(attack.measures if attack and kind == layout.ANALYSIS_RESULTS else ())]
    lacking = [name for name in needed if name not in names]
    if lacking or len(lines) == 1:
        raise Unfinished(f"it has no column {', '.join(lacking)}" if lacking else "it has no lines")
    if kind == layout.ANALYSIS_RESULTS:
        texts = [result.texts.get(name) for name in (layout.MAGNITUDES, layout.ORIENTATIONS)]
        if None in texts:
            raise Unfinished("its gradients are not reduced yet: python3 analyze_gradients.py")
        parts = [lines, *([header, *text.split("\n")[:-1]] for header, text in zip(MEANS, texts))]
        parts += [text.split("\n")[:-1] for name, text in result.texts.items() if name == layout.PER_EXAMPLE]
        if len({len(part) for part in parts}) > 1:
            raise Unfinished(f"damaged: its extracts are not of its {len(lines) - 1} epochs")
        lines = [",".join(line) for line in zip(*parts)]
    if len({line.count(",") for line in lines}) > 1:
        raise Unfinished("damaged: its lines do not all have the columns of its header")
    return "\n".join(lines)


# Of the CSV texts of results: numbers and words, with no quotes, which could reach over the end of a line
MOST_TEXT = 2**20  # characters of a result's file: thousands of epochs
PLAIN = re.compile(r"(?:[\w.+-]{0,100}(?:,[\w.+-]{0,100}){0,200}\n)*", re.ASCII)


@functools.cache
def settings_of_shaping(text: str) -> dict | None:
    """The settings that a shaping's text stands for; None where it is none that is known here."""
    try:
        return shaping(text).settings
    except argparse.ArgumentTypeError:
        return None


def frames(kind: str, found: list[tuple[Result, str]]) -> Part:
    """The data frames of the results of a kind; `fault` of a cell says that its lines are no numbers."""
    lines = read_lines([text for _, text in found])
    columns = [name for name in (*COLUMNS[kind], *MAY_HAVE.get(kind, [])) if name != "success"]
    lines = with_columns(lines, [*columns, "success"])
    numbers = lines[columns].apply(pd.to_numeric, errors="coerce").astype(float)
    faults = faults_of(kind, numbers, lines)
    lines[columns] = numbers
    cells = pd.DataFrame([described(result) for result, _ in found])
    texts, numeric = [*TEXTS, *MORE_TEXTS, *ABOUT, *MACHINE], [*NUMBERS, *MORE_NUMBERS]
    cells = with_columns(cells, [*texts, *numeric])
    of_set = [name for name in numeric if name.startswith("poison.")]  # an attack may call a text so
    cells[of_set] = cells[of_set].apply(pd.to_numeric, errors="coerce")
    cells = identity.with_protocol(cells.astype({**dict.fromkeys(texts, object), **dict.fromkeys(numeric, float)}))
    cells["clip_norm"] = cells.clip_norm.mask(cells.kind == "undefended", math.inf)
    cells["fault"] = faults.reindex(cells.index)
    if "test_acc" in columns:
        accuracies = lines.groupby(level=0).test_acc
        cells["best_acc"], cells["diverged"] = accuracies.max(), lines.test_acc.isna().groupby(level=0).any()
        cells["epochs_acc"] = accuracies.agg(lambda values: values.to_numpy().mean())
        cells["final_acc"] = lines.test_acc[~lines.index.duplicated(keep="last")]
    return Part(cells, lines)


def faults_of(kind: str, numbers: pd.DataFrame, lines: pd.DataFrame) -> pd.Series:
    """What is wrong with the lines of results of a kind, by the row of their cell; of those alone where anything is.

    numbers: the columns of `lines` that must hold such. An accuracy is NaN where a training diverged.
    """
    counts = numbers[[name for name in ("epoch", "n_poison", "target", "poison") if name in numbers]]
    shares = numbers[[name for name in numbers if name.endswith("_acc") or name in BACKDOOR]]
    rules = {
        "it holds something else than numbers": numbers.isna() & lines[[*numbers]].notna() | (numbers.abs() > 1e300),
        "its epochs, poisons or targets are no whole numbers": (counts % 1 != 0) & counts.notna() | (counts < 0),
        "it holds an accuracy that is no share of 1": (shares < 0) | (shares > 1),
    }  # fmt: skip
    if kind == TRIALS:
        rules["its successes are not True or False"] = ~lines[["success"]].astype(str).isin(["True", "False"])
        rules["its targets, poisons or epochs are not numbers"] = counts.isna()
    else:
        rules["its baseline_acc is NaN"] = numbers[["baseline_acc"]].isna()
        order = lines.groupby(level=0).cumcount() + 1
        rules["its epochs are not 1, 2, 3 ..."] = (numbers.epoch != order).to_frame()
    found = {}
    for why, odd in rules.items():
        for row in lines.index[odd.any(axis=1)].unique():
            found.setdefault(row, why)
    return pd.Series(found, dtype=object)


def described(result: Result) -> dict:
    """A result's settings, where it lies, and what it is told from others by."""
    settings, path, source = result.settings, result.path, [result.source]
    extracts = [path.with_name("[mas]extracts_epoch.csv")]
    if kind_of(result) == TRIALS and source == [path]:
        source = [path.with_name("attack_w_*.csv")]
    if layout.PER_EXAMPLE in result.texts and not path.with_name(layout.PER_EXAMPLE).exists():
        folded = layout.folded_files(path, settings["seed"])[layout.PER_EXAMPLE]
        extracts = [path.with_name("[ma]extracts_epoch.csv"), folded]
    poison, versions = settings.get("poison", {}), result.run.get("versions", {})
    made_with = ", ".join(f"{name} {versions.get(name, 'unknown')}" for name in ("tensorflow", "numpy"))
    places = (*map(place, (path, path.parent, *source)), "; ".join(map(place, extracts)))
    told = (identity.of(settings), identity.default_set(settings), made_with, identity.of_set(poison))
    about = dict(zip(ABOUT, (*places, *told))) | {name: result.run.get("machine", {}).get(name) for name in MACHINE}
    about["seconds"] = result.run.get("wall_seconds", math.nan) / result.run.get("replicas", 1)
    return {**settings, **{f"poison.{name}": value for name, value in poison.items()}, **about}


def read_lines(texts: list[str]) -> pd.DataFrame:
    """The lines of many CSV texts, indexed by the text's number; texts of one header are read at once.

    Every digit is kept, and only nan is read as NaN: an empty cell is no number.
    """
    by_header: dict[str, list[str]] = {}
    for number, text in enumerate(texts):
        header, *lines = text.splitlines()
        by_header.setdefault(f"number,{header}", []).extend(f"{number},{line}" for line in lines)
    how = {"keep_default_na": False, "na_values": ["nan"], "float_precision": "round_trip", "low_memory": False}
    files = [io.StringIO("\n".join([header, *lines])) for header, lines in by_header.items()]
    read = [pd.read_csv(file, index_col="number", **how) for file in files]
    return pd.concat(read).sort_index(kind="stable") if read else pd.DataFrame(index=pd.Index([], dtype=int))
