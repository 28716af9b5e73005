"""The figures of results: each is drawn from what is there, and is gone when its results are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from reports import Table, frames, poison_pictures
from reports.certificate_figures import draw_certificates
from reports.gradient_figures import draw_examples, draw_gradients
from reports.indiscriminate import CLIP_NORMS, NOISE_STDS, UNBOUNDED_CLIP_NORM
from reports.reading import Results
from reports.targeted_figures import draw_doses, draw_needed, draw_targets
from results import layout, plotting, words

SWEPT = {"label-flips": "c", "slabs": "f", "slabs-release": "f", "minmax": "c"}  # attacks with a figure, and its claims


@dataclass
class Figure:
    """A figure of the page. claims: letters of those that it belongs to; source: the files that it is drawn from."""

    name: str
    claims: str
    source: str
    drawn: bool = False


def draw_all(tables: dict[str, Table], results: Results) -> list[Figure]:
    """Draw every figure as results/figures/<name>.png and .pdf; one whose results are not there is deleted."""
    sweep = "tables/indiscriminate.csv; tables/seeds.csv"
    drawings: list[tuple[Figure, Callable]] = [
        *(
            (Figure(f"indiscriminate_{attack}", claim, sweep), partial(draw_indiscriminate, attack))
            for attack, claim in SWEPT.items()
        ),
        (Figure("clip_and_noise", "cf", sweep), draw_heat_map),
        (Figure("gradients", "ab", "tables/{gradients,nulls}.csv; analysis/**/[ma]extracts_epoch.csv"), draw_gradients),
        (Figure("examples", "a", "analysis/**/{sextracts_epoch,examples}.csv"), draw_examples),
        (Figure("doses", "d", "tables/doses.csv; tables/half_doses.csv"), draw_doses),
        (Figure("targets_hit", "de", "tables/tpoisoning.csv"), draw_targets),
        (Figure("poisons_needed", "e", "tpoisoning/clean-labels/multipoison/**/{attack_w_*,trials}.csv"), draw_needed),
        (Figure("certificates", "", "tables/certificates.csv; tables/certificates_attacked.csv"), draw_certificates),
        (Figure("matrix", "", "tables/matrix.csv"), draw_matrix),
        (Figure("poisons", "", "datasets/; analysis/tpoisoning/**/poison.csv"), poison_pictures.draw),
    ]
    for figure, draw in drawings:
        drawn = draw(tables, results)
        figure.drawn = drawn is not None
        for suffix in ("png", "pdf"):
            path = layout.figures() / f"{figure.name}.{suffix}"
            plotting.save(drawn, path) if figure.drawn else path.unlink(missing_ok=True)
    return [figure for figure, _ in drawings]


def swept(tables: dict[str, Table]) -> pd.DataFrame:
    """The finished rows of the sweep; `mean` and `interval` of the final accuracy are over `seeds`, one where there are
    no more.
    """
    seeds = tables["seeds"].frame[["attack", "ratio", "shaping", "seeds", "final_acc_mean", "final_acc_ci95"]]
    rows = tables["indiscriminate"].find().merge(seeds, how="left")
    means = {"mean": rows.final_acc_mean.fillna(rows.final_acc), "interval": rows.final_acc_ci95.fillna(0.0)}
    return rows.assign(**means, seeds=rows.seeds.where(rows.final_acc_mean.notna()).fillna(1))


def draw_indiscriminate(attack: str, tables: dict[str, Table], _: Results):
    """Accuracy against the poison ratio, a line for each clip norm without noise."""
    rows = swept(tables).query(f"attack == '{attack}' and noise_multiplier == 0 and clip_norm != {UNBOUNDED_CLIP_NORM}")
    rows = frames.in_order(rows[rows.clip_norm.isin([np.inf, *CLIP_NORMS])], ["clip_norm", "ratio"])
    if rows.empty:
        return None
    figure, (axes,) = plotting.panels(2, height=3.4)
    baseline, looks = rows.baseline_acc.iloc[0], plotting.shaping_looks(rows.shaping)
    for shaping, chosen in rows.groupby("shaping", sort=False):
        look, label = looks[shaping], words.shaping(shaping)
        axes[0].plot(chosen.ratio, chosen.best_acc, label=label, **look)
        known = chosen.dropna(subset="published_best_acc")
        axes[0].plot(known.ratio, known.published_best_acc, **look | {"ls": "", "mfc": "none", "ms": 9})
        axes[1].plot(chosen.ratio, chosen["mean"], label=label, **look)
        ends = chosen["mean"] - chosen.interval, chosen["mean"] + chosen.interval
        axes[1].fill_between(chosen.ratio, *ends, color=look["color"], alpha=0.15, lw=0)
    low = min(axis.get_ylim()[0] for axis in axes)
    last = f"last epoch, mean of {words.counted(rows.seeds, 'seed')}"
    for axis, title in zip(axes, (f"best epoch, seed {layout.SEED} (open: published)", last)):
        axis.axhline(baseline, color="0.5", ls=":", lw=1)
        axis.set(xlabel="poisons per clean row", xscale="log", ylabel="test accuracy")
        axis.set_title(title, fontsize=9)
        ticks = sorted(rows.ratio.unique())
        axis.set_xticks(ticks, [f"{ratio:g}" for ratio in ticks], rotation=90, fontsize=8)
        axis.minorticks_off()
        axis.set_ylim(low, baseline + 0.005)
    plotting.legend_below(figure, *axes[1].get_legend_handles_labels())
    return figure


def draw_matrix(tables: dict[str, Table], _: Results):
    """The chosen rows of the matrix: gain in points by shaping and column, of the binary subtask where it is there."""
    if "matrix" not in tables:
        return None
    cells = tables["matrix"].frame.query("chosen and shaping != 'undefended'")
    usual = cells[(cells.dataset == layout.SUBTASK) & (cells.network == "lr")]
    cells = usual if len(usual) else cells
    if cells.empty:
        return None
    cells = cells.sort_values("adaptive", key=lambda column: column != "", kind="stable")
    gains = 100 * cells.pivot_table("gain_mean", "shaping", "column", sort=False)
    figure, ((axis,),) = plotting.panels(1, width=3.6 + 0.5 * gains.shape[1], height=2.2 + 0.22 * len(gains))
    image = axis.imshow(gains, cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
    for (row, column), gain in np.ndenumerate(gains.to_numpy()):
        if np.isfinite(gain):
            colour, shown = "white" if abs(gain) > 6 else "black", f"{gain:+.1f}"
            shown = "0.0" if float(shown) == 0 else shown
            axis.text(column, row, shown, ha="center", va="center", fontsize=7, color=colour)
    oblivious = cells[cells.adaptive == ""].column.nunique()
    if 0 < oblivious < gains.shape[1]:
        axis.axvline(oblivious - 0.5, color="black", lw=1)
        places = ((oblivious - 1) / 2, "oblivious attacks"), ((oblivious + gains.shape[1] - 1) / 2, "adaptive attacks")
        for place, name in places:
            axis.annotate(name, (place, 1), (0, 4), ("data", "axes fraction"), "offset points", ha="center", fontsize=8)
    axis.set_xticks(range(gains.shape[1]), gains.columns, rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(gains)), [words.shaping(text) for text in gains.index])
    axis.tick_params(length=0)
    axis.grid(False)
    figure.colorbar(image, ax=axis, extend="both", fraction=0.03, pad=0.02, label="gain, points")
    plotting.note(figure, f"gain over undefended training, mean of {words.counted(cells.seeds, 'seed')}")
    return figure


def draw_heat_map(tables: dict[str, Table], _: Results):
    """Final accuracy by clip norm and noise at ratio 0.4, a panel an attack."""
    rows = swept(tables).query("ratio == 0.4 and attack in ('label-flips', 'slabs')")
    if rows.empty:
        return None
    figure, (axes,) = plotting.panels(rows.attack.nunique(), width=3.8, height=2.9)
    rows, stds = rows.assign(noise_std=(rows.noise_multiplier * rows.clip_norm).round(15)), sorted(NOISE_STDS)
    for axis, (attack, finals) in zip(axes, rows.groupby("attack")):
        grid = finals.pivot(index="clip_norm", columns="noise_std", values="mean").reindex(
            index=CLIP_NORMS, columns=stds
        )
        grid.insert(0, "undefended", finals["mean"][finals.shaping == "undefended"].max())  # of one row
        values = grid.to_numpy(float)
        image = axis.imshow(values, cmap="cividis", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(stds) + 1), ["undefended", *(f"{std:g}" for std in stds)], fontsize=7)
        axis.set_yticks(range(len(CLIP_NORMS)), [f"{clip:g}" for clip in CLIP_NORMS])
        axis.set(xlabel="standard deviation of the noise", ylabel="clip norm")
        axis.set_title(f"{attack}, ratio 0.4, mean of {words.counted(finals.seeds, 'seed')}", fontsize=9)
        axis.grid(False)
        figure.colorbar(image, ax=axis, label="test accuracy, last epoch")
    return figure
