"""The tables of figures in the documents, line by line as the committed results have them (see test_quotes.py)."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
from conftest import REPOSITORY

SUBTASK = "fashion_mnist_3_4.1.0"
TABLES = defaultdict(list)  # document -> functions that make its tables


def of(document: str):
    """Says in which document the table stands that a function makes, its header first."""
    return lambda make: TABLES[document].append(make) or make


@functools.cache
def read(name: str) -> pd.DataFrame:
    """A table of results/tables by its name, or any CSV file by its path.

    Mean gradients get their columns' names, and quantiles over single gradients the settings of their runs.
    """
    path = REPOSITORY / (name if name.endswith(".csv") else f"results/tables/{name}.csv")
    if path.name == "mextracts_epoch.csv":
        means = pd.read_csv(path, names=["clean_norm", "poison_norm"])
        return means.assign(epoch=means.index + 1)
    table = pd.read_csv(path, dtype={"shaping": str, "setting": str}, low_memory=False)
    if path.name == "examples.csv":
        runs = pd.read_csv(path.with_name("runs.csv"), dtype={"shaping": str})
        runs = runs.rename(columns={"poison.alpha": "alpha", "poison.patch": "patch"})
        return table.merge(runs[runs.columns.intersection(["run", "path", "network", "shaping", "alpha", "patch"])])
    return table


def row(table: pd.DataFrame, **values) -> pd.Series:
    """The one row of a table that has these values."""
    rows = table
    for column, value in values.items():
        rows = rows[rows[column].isna() if value is None else rows[column] == value]
    assert len(rows) == 1, f"{len(rows)} rows with {values}"
    return rows.iloc[0]


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def written(number: float, form: str) -> str:
    """A number of a table as a document has it: halves are rounded away from 0, as readers round them; no -0.0."""
    fixed = re.fullmatch(r"[+]?,?[.](\d+)f", form)
    if fixed:
        number = Decimal(repr(round(float(number), 9))).quantize(Decimal(1).scaleb(-int(fixed[1])), ROUND_HALF_UP)
    return re.sub(r"^-(?=[0.]+$)|(?<=e-)0", "", f"{number:{form}}")


def beside(reached: float, published: float, form: str) -> str:
    """What was reached, and in brackets what was published, if it was."""
    return written(reached, form) + ("" if pd.isna(published) else f" ({written(published, form)})")


def interval(middle: float, low: float, high: float, form: str) -> str:
    return f"{written(middle, form)} ({written(low, form)} to {written(high, form)})"


@of("results/README.md")
def watermarks():
    measures = {"poison norm": "mean_poison_norm", "norm ratio": "mean_norm_ratio", "cosine": "mean_cosine"}
    yield line("alpha", "logistic regression, 3/4: poison norm", "norm ratio", "cosine",
               "shallow MLP, ten classes: poison norm", "norm ratio", "cosine")  # fmt: skip
    pairs = read("gradients").query("set == 'pairs_of_100'")
    for alpha in ("0.1", "0.2", "0.4", "0.6", "0.8", "1.0"):
        sets = [row(pairs, dataset=dataset, setting=f"alpha_{alpha}") for dataset in (SUBTASK, "fashion_mnist")]
        yield line(alpha, *(
            beside(found[column], found[f"published_{column}"], form)
            for found in sets
            for column, form in zip(measures.values(), (".2f", ".1f", ".3f"))
        ))  # fmt: skip


@of("results/README.md")
def backdoors():
    yield line("patch", "clean accuracy", "success before", "after 1 epoch", "after 40", "other classes, after 40",
               "poison norm", "norm ratio", "cosine")  # fmt: skip
    for patch in (1, 4, 7, 10, 14):
        which = {"setting": f"4_0.01_{patch}", "model": "vanilla_badnet_100_40_0.01"}
        success, gradients = (row(read(name), **which) for name in ("insertion", "gradients"))
        accuracies = ("final_acc", "baseline_backdoor_acc", "first_backdoor_acc", "final_backdoor_acc")
        norms = {"mean_poison_norm": ".2f", "mean_norm_ratio": ".1f", "mean_cosine": ".3f"}
        yield line(patch, *(beside(success[name], success[f"published_{name}"], ".4f") for name in accuracies),
                   written(success.final_backdoor_acc_other_classes, ".4f"),
                   *(beside(gradients[name], gradients[f"published_{name}"], form) for name, form in norms.items())
        )  # fmt: skip


@of("results/README.md")
def nulls():
    yield line("undefended logistic regression", "norm ratio", "cosine", "single rows: median norm ratio",
               "upper quartile of cosines")  # fmt: skip
    few = {"norm_ratio": 1, "cosine": 3, "median_example_ratio": 2, "upper_quartile_example_cosine": 3}
    for name, which, forms in (
        ("watermarks, 100 pairs, alpha 0.1", ("pairs_of_100", "alpha_0.1"), few),
        ("watermarks, 100 pairs, alpha 1.0", ("pairs_of_100", "alpha_1.0"), few),
        ("watermarks, one pair, alpha 1.0", ("a_pair_0_1", "alpha_1.0"), few),
        ("label flips, 0.4", ("label-flips", f"{SUBTASK}_random_0.4"), {**few, "norm_ratio": 2}),
        ("slabs, 0.4", ("slabs", "fmnist_34_attack_eps40_quantile65_rho_slab"), {**few, "norm_ratio": 2}),
        ("targeted, one poison", ("clean-labels", "one target"), {**few, "norm_ratio": 0, "median_example_ratio": 1}),
    ):
        where = {"set": which[0], "setting": which[1], "network": "lr", "shaping": "undefended"}
        found = [(row(read("nulls"), measure=measure, **where), places) for measure, places in forms.items()]
        yield line(name, *(
            "{} ({} to {})".format(*(
                written(value, f".{min(places, 1) if value >= 100 else places}f")
                for value in one[["measured", "null_low", "null_high"]]
            ))
            for one, places in found
        ))  # fmt: skip


CLIPS = ("0.1", "1", "2", "4", "8")


@of("results/README.md")
def label_flips():
    yield line("ratio", "undefended", *(f"clip {clip}" for clip in CLIPS))
    cells = read("indiscriminate").query("attack == 'label-flips'")
    for ratio in (0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4):
        found = [row(cells, ratio=ratio, shaping=shaping) for shaping in ("undefended", *CLIPS)]
        yield line(ratio, *(
            f"{one.best_acc:.4f} / {beside(one.final_acc, one.published_best_acc, '.4f')}" for one in found
        ))  # fmt: skip


@of("results/README.md")
def label_flips_by_seed():
    yield line("clip norm", "best epoch", "final epoch (95% interval; range)", "mean of all epochs")
    for shaping in (*CLIPS, "undefended"):
        found = row(read("seeds"), attack="label-flips", ratio=0.4, shaping=shaping, seeds=21)
        final = f"{found.final_acc_mean:.4f} ± {found.final_acc_ci95:.4f}"
        yield line(shaping if shaping == "undefended" else float(shaping), f"{found.best_acc_mean:.4f}",
                   f"{final}; {found.final_acc_min:.4f} to {found.final_acc_max:.4f}",
                   f"{found.epochs_acc_mean:.4f}")  # fmt: skip


@of("results/README.md")
def slabs():
    yield line("ratio", "undefended", *(f"clip {clip}" for clip in ("100", "8", "4", "2", "1", "0.1")))
    published = read("results/published/ipoisoning.csv").query("attack == 'slabs'")
    for ratio in (0.1, 0.2, 0.4):
        cells = []
        for shaping in ("undefended", "100", "8", "4", "2", "1", "0.1"):
            found = row(read("seeds"), attack="slabs", ratio=ratio, shaping=shaping)
            cell = f"{found.best_acc_mean:.4f} ± {found.best_acc_ci95:.4f}"
            there = published.query(f"ratio == {ratio} and clip_norm == {found.clip_norm}".replace("inf", "-1"))
            plain = there.query("noise_multiplier == 0").best_acc
            noisy = there.sort_values("noise_multiplier").best_acc
            if len(plain) or shaping == "100":
                said = ", ".join(f"{accuracy:.4f}" for accuracy in (plain if len(plain) else noisy))
                cell += f" ({said}{'' if len(plain) else ' with noise'})"
            cells.append(cell)
        yield line(ratio, *cells)


@of("results/README.md")
def minmax():
    yield line("ratio", "U*", "training loss of the attack", "undefended victim: best / final", "slabs: best")
    for ratio in (0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4):
        found, slab = (row(read("crafting"), attack=attack, ratio=ratio) for attack in ("minmax", "slabs"))
        yield line(ratio, f"{found.upper_bound:.4f}", f"{found.training_loss:.4f}",
                   f"{found.undefended_best_acc:.4f} / {found.undefended_final_acc:.4f}",
                   f"{slab.undefended_best_acc:.4f}")  # fmt: skip


TARGETED = {  # as the tables about targeted poisons call each shaping, in their order
    "undefended": "undefended", "clip 0.1": "0.1", "clip 1": "1", "clip 4": "4", "clip 4, noise 0.0025": "4:0.0025",
    "`phuber:2`": "phuber:2", "`gce:0.7`": "gce:0.7", "`centered-clip:1`": "centered-clip:1",
    "`phuber:2+clip:1`": "phuber:2+clip:1",
}  # fmt: skip


def dose_rows(rates=(0.04, 0.08)):
    """Each shaping at each learning rate of the dose curves, with the rows of doses.csv and half_doses.csv."""
    for name, shaping in TARGETED.items():
        for rate in rates:
            which = (
                f"dataset == 'purchases-cj' and network == 'lr' and shaping == '{shaping}' and learning_rate == {rate}"
            )
            if len(read("doses").query(which)):
                yield name, rate, read("doses").query(which), read("half_doses").query(which)


def ratio_to_undefended(found: pd.Series) -> str:
    """The ratio of half doses with its interval, and whether that lies beyond 1."""
    if pd.isna(found.ratio):
        return ""
    if found.half_dose >= 20:  # four times the largest dose: none reached
        return found.effect
    sign = {"helps": " +", "harms": " -"}.get(found.effect, "")
    return interval(found.ratio, found.ratio_low, found.ratio_high, ".2f") + sign


@of("results/README.md")
def doses():
    radii = (1, 1.6, 2, 2.4, 2.8, 3.3, 4, 5)
    yield line("shaping", "rate", *radii, "half fall at", "ratio to undefended")
    for name, rate, curve, half in dose_rows():
        hit = [row(curve, within=50, radius=float(radius)).successes for radius in radii]
        found = row(half, within=50)
        dose = "none reached"
        if found.half_dose < 20:
            dose = interval(found.half_dose, found.half_dose_low, found.half_dose_high, ".2f")
        yield line(name, rate, *hit, dose, ratio_to_undefended(found))


@of("results/README.md")
def half_doses():
    yield line("shaping", "rate", "within 50 epochs", "within 25")
    for name, rate, _, half in dose_rows():
        if name != "undefended":
            yield line(name, rate, *(ratio_to_undefended(row(half, within=within)) for within in (50, 25)))
    mlp = read("half_doses").query("network == 'shallow-mlp' and shaping == '0.1'")
    for rate, said in ((0.001, "shallow MLP, clip 0.1 (8 targets, 3 doses)"), (0.002, "shallow MLP, clip 0.1")):
        found = [row(mlp, within=within, learning_rate=rate, targets=8, doses=3) for within in (50, 25)]
        yield line(said, rate, *map(ratio_to_undefended, found))


@of("results/README.md")
def second_stand_in():
    radii = (0.35, 0.7, 0.95, 1.1, 1.4, 1.7)
    yield line("shaping", "rate", "lost without poison", *radii, "difference, 50 epochs", "difference, 25 epochs")
    curves, halves = (read(name).query("dataset == 'purchases-cj2'") for name in ("doses", "half_doses"))
    for shaping, rate in (("undefended", 0.04), ("0.1", 0.04), ("0.1", 0.08), ("4", 0.04), ("4", 0.08)):
        which = {"shaping": shaping, "learning_rate": rate}
        hit = [row(curves, within=50, radius=radius, **which) for radius in radii]
        differences = []
        for within in (50, 25):
            found = row(halves, within=within, **which)
            share = [100 * found[name] for name in ("difference", "difference_low", "difference_high")]
            sign = {"helps": " +", "harms": " -"}.get(found.effect, "")
            differences.append("" if shaping == "undefended" else interval(*share, ".1f") + sign)
        lost = f"{hit[0].without_poison} of {hit[0].without_poison + hit[0].targets}"
        name = shaping if shaping == "undefended" else f"clip {shaping}"
        yield line(name, rate, lost, *(one.successes for one in hit), *differences)


@of("results/README.md")
def paper_budget():
    yield line("network", "shaping", "rate", "oneshot, 25 epochs", "oneshot, 50 epochs", "median epoch",
               "multipoison, 25 epochs", "poisons needed", "multipoison, 50 epochs", "poisons needed",
               "lost without poison")  # fmt: skip
    cells = read("tpoisoning").dropna(subset="targets")
    order = ("undefended", "0.1", "1", "4", "4:0.00025", "4:0.0025", "4:0.025", "8")
    groups = cells.drop_duplicates(["network", "shaping", "learning_rate"])
    groups = groups.assign(order=groups.shaping.map(order.index), rate=-groups.learning_rate)
    for _, group in groups.sort_values(["network", "order", "rate"], kind="stable").iterrows():
        which = {name: group[name] for name in ("network", "shaping", "learning_rate")}
        found = {
            (one["mode"], one.epochs): one
            for _, one in cells.loc[(cells[list(which)] == pd.Series(which)).all(axis=1)].iterrows()
        }
        yield line(*paper_budget_cells(which, found))


def paper_budget_cells(which: dict, found: dict):
    """A line of that table; `found` has the cells by mode and epochs."""
    clip, _, noise = which["shaping"].partition(":")
    name = clip if clip == "undefended" else f"clip {clip}" + (f", noise {noise}" if noise else "")
    yield from (which["network"], name, which["learning_rate"])
    for mode, epochs in (("oneshot", 25), ("oneshot", 50), ("multipoison", 25), ("multipoison", 50)):
        one = found.get((mode, epochs))
        if one is None:
            yield from ("",) if (mode, epochs) == ("oneshot", 25) else ("", "")
            continue
        fell = f"{one.successes:g}" + ("" if one.targets == 100 else f" of {one.targets:g}")
        yield fell + ("" if pd.isna(one.published_successes) else f" ({one.published_successes:g})")
        if mode == "multipoison":
            yield beside(one.median_poisons, one.published_median_poisons, "g")
        elif epochs == 50:
            yield f"{one.median_epoch:g}"
    yield f"{found['oneshot', 50].without_poison:g}"


@of("results/README.md")
def gradient_canceling():
    yield line("victim", "aims at a model of", "residual before", "after", "least possible", "accuracy of the victim",
               "on random rows")  # fmt: skip
    shown = {
        "target_test_acc": ".3f", "residual_before": ".2f", "residual_after": ".2f", "residual_bound": ".2f",
        "victim_test_acc": ".3f", "random_test_acc": ".3f",
    }  # fmt: skip
    for shaping in SHOWN_VICTIMS:
        found = row(read("crafting"), attack="gradient-canceling", ratio=0.1, shaping=shaping)
        yield line(f"`{shaping}`", *(written(found[name], form) for name, form in shown.items()))


SHOWN_VICTIMS = (
    "undefended", "0.1", "gce:0.7", "phuber:2", "linear", "median-of-means:10", "trimmed-mean:0.45:30",
    "epic:0.3:10:10",
)  # fmt: skip


RADII = (10, 50, 108, 216, 324, 540, 1080)


def share(accuracy: float) -> str:
    return written(accuracy, ".3f") if accuracy else "0"


@of("results/README.md")
def attacked():
    ends = {108: "108 (1%)", 540: "540 (5%)"}
    yield line("clip norm, clean accuracy", "", *(ends.get(radius, radius) for radius in RADII))
    for shaping in ("0.1", "1", "4"):
        found = [row(read("certificates_attacked"), shaping=shaping, poisons=radius) for radius in RADII]
        name = f"{shaping}, {written(found[0].clean_acc, '.3f')}"
        moved = "moved, of what the proof allows" if shaping == "0.1" else "moved"
        yield line(name, "certified", *(share(one.certified_acc) for one in found))
        yield line("", "worst attack", *(share(one.attacked_acc) for one in found)).replace("|  |", "| |")
        yield line("", moved, *(written(one.moved_over_bound, ".2f") for one in found)).replace("|  |", "| |")


@of("results/README.md")
def certified():
    yield line("certificate", *RADII)
    names = {
        "stability": "clipped SGD", "partition": "votes of {} parts", "noisy": "votes of {} noisy models"
    }  # fmt: skip
    for certificate, name in names.items():
        settings = read("certificates").query(f"dataset == '{SUBTASK}' and certificate == '{certificate}'")
        settings = settings.dropna(subset="best_at")
        best = [settings[settings.best_at.str.split().map(lambda at, r=str(radius): r in at)] for radius in RADII]
        counts = settings.parts if certificate == "partition" else settings.models.dropna()
        yield line(name.format(", ".join(f"{count:.0f}" for count in sorted(set(counts)))), *(
            beside(one[f"certified_at_{radius}"].item(), one.clean_acc.item(), ".3f") if len(one) else "0"
            for radius, one in zip(RADII, best)
        ))  # fmt: skip
