"""The tables of figures about targeted poisons, line by line, as the committed results have them."""

from __future__ import annotations

import pandas as pd
from quoted import beside, interval, line, of, read, row

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
