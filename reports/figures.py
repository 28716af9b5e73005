"""The figures of results: each is drawn from what is there, and is gone when its results are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from reports import Table, certificates, frames, nulls, poison_pictures
from reports.frames import MODES
from reports.gradients import published_lines
from reports.indiscriminate import CLIP_NORMS, NOISE_STDS, UNBOUNDED_CLIP_NORM
from reports.reading import QUANTILES, Results
from reports.targeted import of_protocol, with_needed
from results import layout, plotting

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
    drawings = [
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


def look(index: int, **more) -> dict:
    """Colour, marker and widths of the index-th line."""
    return {"color": plotting.COLOURS[index % 7], "marker": plotting.MARKERS[index % 7], "ms": 4, "lw": 1.2, **more}


def swept(tables: dict[str, Table]) -> pd.DataFrame:
    """The finished rows of the sweep; `mean` and `interval` of the final accuracy are over seeds, if any."""
    seeds = tables["seeds"].frame[["attack", "ratio", "shaping", "final_acc_mean", "final_acc_ci95"]]
    rows = tables["indiscriminate"].find().merge(seeds, how="left")
    return rows.assign(mean=rows.final_acc_mean.fillna(rows.final_acc), interval=rows.final_acc_ci95.fillna(0.0))


def draw_indiscriminate(attack: str, tables: dict[str, Table], _: Results):
    """Accuracy against the poison ratio, a line for each clip norm without noise."""
    rows = swept(tables).query(f"attack == '{attack}' and noise_multiplier == 0 and clip_norm != {UNBOUNDED_CLIP_NORM}")
    if rows.empty:
        return None
    figure, (axes,) = plotting.panels(2, height=3.2)
    baseline = rows.baseline_acc.iloc[0]
    for index, clip_norm in enumerate([np.inf, *CLIP_NORMS]):
        chosen, label = rows[rows.clip_norm == clip_norm], f"clip {clip_norm:g}".replace("clip inf", "undefended")
        if len(chosen):
            axes[0].plot(chosen.ratio, chosen.best_acc, label=label, **look(index))
            known = chosen.dropna(subset="published_best_acc")
            axes[0].plot(known.ratio, known.published_best_acc, **look(index, ls="", mfc="none", ms=9))
            axes[1].plot(chosen.ratio, chosen["mean"], label=label, **look(index))
            ends = chosen["mean"] - chosen.interval, chosen["mean"] + chosen.interval
            axes[1].fill_between(chosen.ratio, *ends, color=look(index)["color"], alpha=0.15, lw=0)
    low = min(axis.get_ylim()[0] for axis in axes)
    for axis, title in zip(axes, ("best epoch (open: published)", "last epoch, over seeds")):
        axis.axhline(baseline, color="0.5", ls=":", lw=1)
        axis.set(title=title, xlabel="poisons per clean row", xscale="log", ylabel="test accuracy")
        ticks = sorted(rows.ratio.unique())
        axis.set_xticks(ticks, [f"{ratio:g}" for ratio in ticks], rotation=60)
        axis.minorticks_off()
        axis.set_ylim(low, baseline + 0.005)
    axes[1].legend(ncols=2, loc="lower left")
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
    figure, ((axis,),) = plotting.panels(1, width=1.6 + 0.55 * gains.shape[1], height=1.2 + 0.22 * len(gains))
    axis.imshow(gains, cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
    for (row, column), gain in np.ndenumerate(gains.to_numpy()):
        if np.isfinite(gain):
            colour = "white" if abs(gain) > 6 else "black"
            axis.text(column, row, f"{gain:+.1f}", ha="center", va="center", fontsize=6, color=colour)
    axis.set_xticks(range(gains.shape[1]), gains.columns, rotation=60, ha="right")
    axis.set_yticks(range(len(gains)), gains.index)
    axis.tick_params(length=0)
    axis.grid(False)
    return figure


def draw_heat_map(tables: dict[str, Table], _: Results):
    """Final accuracy by clip norm and noise at ratio 0.4, a panel an attack."""
    rows = swept(tables).query("ratio == 0.4 and attack in ('label-flips', 'slabs')")
    if rows.empty:
        return None
    figure, (axes,) = plotting.panels(rows.attack.nunique(), height=2.9)
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
        axis.set(title=f"{attack}, ratio 0.4", xlabel="standard deviation of the noise", ylabel="clip norm")
        axis.grid(False)
        figure.colorbar(image, ax=axis)
    return figure


def draw_gradients(tables: dict[str, Table], results: Results):
    """Norm ratios and cosines against the epoch, a column a set; the published ones as open marks."""
    rows = tables["gradients"].frame.query("planned == True and shaping == 'undefended'")
    pairs = {f"alpha {alpha}": f"set == 'pairs_of_100' and setting == 'alpha_{alpha}'" for alpha in (0.1, 0.4, 1.0)}
    panels = {
        "watermarks, LR": {label: f"{query} and network == 'lr'" for label, query in pairs.items()},
        "watermarks, MLP": {label: f"{query} and network == 'shallow-mlp'" for label, query in pairs.items()},
        "backdoors, BadNet": {
            f"patch {patch}": f"network == 'badnet' and setting == '4_0.01_{patch}'" for patch in (1, 4, 10)
        },
        "indiscriminate, LR": {"label flips": "set == 'label-flips'", "slabs": "set == 'slabs'"},
    }
    chosen = [
        (title, [(label, rows.query(query).iloc[0]) for label, query in panel.items()])
        for title, panel in panels.items()
    ]
    if not any(pd.notna(row.source) for _, panel in chosen for _, row in panel):
        return None
    known = published_lines(rows, frames.published("gradients"))
    figure, axes = plotting.panels(len(panels), 2, width=2.5, height=2.2)
    for (title, panel), (ratios, cosines) in zip(chosen, axes.T):
        draw_bands(panel[0][1], results.nulls, {"norm_ratio": ratios, "cosine": cosines})
        for index, (label, row) in enumerate(panel):
            measured, beside = results.analyses.lines.query("index == @row.cell"), known[known.row == row.name]
            for lines, style in (
                (measured, {"marker": "", "label": label}),
                (beside, {"ls": "", "mfc": "none", "markevery": 4}),
            ):
                if len(lines):
                    ratios.plot(range(1, len(lines) + 1), lines.poison_norm / lines.clean_norm, **look(index, **style))
                    cosines.plot(range(1, len(lines) + 1), lines.cosine, **look(index, **style))
        ratios.axhline(1, color="0.5", ls=":", lw=1)
        ratios.set(title=title, yscale="log", ylim=(0.3, 1500), ylabel="norm ratio" if ratios is axes[0, 0] else None)
        cosines.set(xlabel="epoch", ylim=(-1.08, 1.08), ylabel="cosine" if cosines is axes[1, 0] else None)
        if any(pd.notna(row.source) for _, row in panel):
            ratios.legend(fontsize=7)
    return figure


def draw_bands(row, draws: pd.DataFrame, axes: dict) -> None:
    """What as many harmless duplicates look like in an analysis, where that was measured; axes: by the measure."""
    draws = draws[nulls.matches(draws, row)]
    for name, axis in axes.items() if len(draws) else ():
        band = nulls.bands(draws, name)
        axis.fill_between(band.index, band.low, band.high, color="0.85", lw=0, label="duplicates, 95%", zorder=0)


def draw_examples(tables: dict[str, Table], results: Results):
    """Quantiles of the gradient norms of single rows, clean beside poison, a group for each undefended analysis."""
    rows = tables["gradients"].find(shaping="undefended").dropna(subset="median_example_ratio")
    rows = rows[(rows.analysis != "collision") | (rows.set == "pairs_of_100")]
    if rows.empty:
        return None
    rows = sorted(
        ((example_label(row), row.cell) for row in rows.itertuples()), key=lambda row: layout.natural_order(row[0])
    )
    beside = tables["nulls"].find(measure="median_example_ratio").dropna(subset="draws").set_index("cell")
    figure, ((axis,),) = plotting.panels(1, width=7.5, height=0.2 * len(rows) + 0.8)
    for place, (_, cell) in enumerate(reversed(rows)):
        quantiles = results.analyses.lines.loc[[cell], QUANTILES].median()
        if cell in beside.index:
            null = quantiles.iloc[2] * beside.loc[cell, ["null_low", "null_high"]].astype(float)
            axis.plot(null, [place - 0.18] * 2, color="#56B4E9", lw=6, alpha=0.6, solid_capstyle="butt", zorder=0)
        for offset, colour, norms in ((0.18, "0.6", quantiles.iloc[:5]), (-0.18, "black", quantiles.iloc[5:10])):
            low, lower, middle, upper, high = norms
            axis.plot([low, high], [place + offset] * 2, color=colour, lw=0.8)
            axis.plot([lower, upper], [place + offset] * 2, color=colour, lw=4, solid_capstyle="butt")
            axis.plot([middle], [place + offset], color="#D55E00", marker="|", ms=7, mew=1.8)
    axis.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)], fontsize=7)
    axis.set(xscale="log", xlabel="norm of a single row's gradient, last layer", ylim=(-0.7, len(rows) - 0.3))
    axis.set_xlim(left=max(axis.get_xlim()[0], 1e-9))
    return figure


def example_label(row) -> str:
    """What an analysis is called in the figure of single rows."""
    network = {"lr": "LR", "shallow-mlp": "MLP", "badnet": "BadNet"}[row.network]
    return {
        "collision": f"watermark, {row.setting.replace('_', ' ')} ({network})",
        "insertion": f"patch {row.patch:.0f} ({network})",
        "tpoisoning": f"targeted, {row.setting} ({row.network})",
        "ipoisoning": f"{row.set} {row.ratio:g} ({network})",
    }[row.analysis]


def draw_doses(tables: dict[str, Table], _: Results):
    """Share of the targets hit against the dose, with Wilson intervals: the paper's rates, equal rates, other kinds."""
    if "doses" not in tables:
        return None
    rows = tables["doses"].frame
    first = min(rows.dataset, key=lambda name: (name != "purchases", name))
    rows = rows[(rows.dataset == first) & (rows.network == "lr") & (rows.within == layout.RETRAIN_EPOCHS)]
    if rows.empty:
        return None
    rate = rows.learning_rate[rows.shaping == "undefended"].min()
    clips, alone = rows.clip_norm.notna() & np.isfinite(rows.clip_norm), rows.shaping == "undefended"
    panels = {
        "clipped, the paper's rates": alone | (clips & (rows.learning_rate != rate)),
        "clipped, the undefended rate": alone | (clips & (rows.learning_rate == rate)),
        "other shapings, the undefended rate": alone | (~clips & (rows.learning_rate == rate)),
    }
    figure, (axes,) = plotting.panels(len(panels), width=3.4, height=3.0)
    for axis, (title, chosen) in zip(axes, panels.items()):
        for index, (text, curve) in enumerate(rows[chosen].groupby("shaping", sort=False)):
            axis.plot(curve.radius, 100 * curve.share, label=text, **look(index))
            ends = 100 * curve.share_low, 100 * curve.share_high
            axis.fill_between(curve.radius, *ends, color=look(index)["color"], alpha=0.1, lw=0)
        matched = rows[alone & rows.matched].radius
        axis.axvline(matched.iloc[0], color="0.5", ls=":", lw=1) if len(matched) else None
        axis.set(title=title, xscale="log", xlabel="L2 distance that a poison may move", ylim=(-3, 103))
        axis.set_xticks(sorted(rows.radius.unique()), [f"{radius:g}" for radius in sorted(rows.radius.unique())])
        axis.minorticks_off()
        axis.legend(fontsize=6)
    axes[0].set_ylabel("targets hit, %")
    return figure


def draw_certificates(tables: dict[str, Table], _: Results):
    """Accuracy against the number of substituted rows: certified from below and attacked from above, a panel a clip
    norm; the best setting of each certificate; and every setting by its clean accuracy, with the envelope.
    """
    if "certificates_attacked" not in tables or "certificates" not in tables:
        return None
    rows, settings = (tables[name].frame for name in ("certificates_attacked", "certificates"))
    rows, settings = (frame[frame.dataset == layout.SUBTASK] for frame in (rows, settings))
    setting = ["learning_rate", "epochs", "batch_size", "shaping", "network", "optimizer", "decay"]
    trainings = list(rows.groupby(setting, sort=True))[:3]
    if not trainings:
        return None
    figure, axes = plotting.panels(3, 2, width=3.0, height=2.7)
    counts = sorted(rows.poisons.unique())
    for axis, ((rate, epochs, _, text, *_), group) in zip(axes[0], trainings):
        axis.fill_between(group.poisons, group.certified_acc, group.attacked_acc, color="0.9", lw=0)
        axis.plot(group.poisons, group.attacked_acc, label="worst attack", **look(2))
        axis.plot(group.poisons, group.certified_acc, label="certified", **look(1))
        axis.axhline(group.clean_acc.iloc[0], color="0.5", ls=":", lw=1)
        axis.set_title(f"clip {text}, rate {rate:g}, {epochs:g} epochs", fontsize=8)
    best = certificates.best_of_each(settings)
    for index, kind in enumerate(best):
        axes[1, 0].plot(best.index, best[kind], label=kind, **look(index))
    axes[1, 0].set_title("best setting of each certificate", fontsize=8)
    for axis in (*axes[0][: len(trainings)], axes[1, 0]):
        axis.set(xscale="log", ylim=(-0.03, 1), xlabel="substituted rows")
        axis.set_xticks(counts, [f"{count:g}" for count in counts], rotation=60)
        axis.minorticks_off()
        axis.legend(fontsize=7, loc="lower left")
    certified = [count for count in counts if f"certified_at_{count:g}" in settings]
    chosen = dict.fromkeys(certified[int(part * (len(certified) - 1))] for part in (0.4, 0.9) if certified)
    for axis in axes[1, 1 + len(chosen) :]:
        axis.set_axis_off()
    for axis, count in zip(axes[1, 1:], chosen):
        column = f"certified_at_{count:g}"
        for index, (kind, group) in enumerate(settings.groupby("certificate")):
            axis.plot(group.clean_acc, group[column], label=kind, **look(index, ls="", ms=3))
        known = settings.dropna(subset=["clean_acc", column]).sort_values("clean_acc")
        axis.step(known.clean_acc, known[column][::-1].cummax()[::-1], where="pre", color="0.5", lw=1, label="envelope")
        axis.set(xlabel="clean accuracy", ylim=(-0.03, 1))
        axis.set_title(f"every setting, {count:g} substituted rows", fontsize=8)
        axis.legend(fontsize=7, loc="upper right")
    for axis in axes[0][len(trainings) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("test accuracy")
    return figure


def draw_targets(tables: dict[str, Table], _: Results):
    """Per cent of targets hit, a bar for each shaping, mode and number of epochs."""
    rows = tables["tpoisoning"].frame.query("network == 'lr' and epochs in (50, 25)")
    if rows.source.isna().all():
        return None
    shown = {
        ("undefended", 0.04): "undefended", ("0.1", 0.08): "clip 0.1", ("0.1", 0.04): "clip 0.1,\nsame\nrate",
        ("1", 0.08): "clip 1", ("4", 0.08): "clip 4", ("4", 0.04): "clip 4,\nsame\nrate",
        ("4:0.0025", 0.08): "clip 4,\nnoise\n0.0025",
    }  # fmt: skip
    mark = {"marker": "D", "mfc": "white", "color": "#D55E00", "ls": ""}
    figure, (axes,) = plotting.panels(2, width=4.2, height=2.9)
    for axis, mode in zip(axes, MODES):
        for row in rows[rows["mode"] == mode].itertuples():
            if (row.shaping, row.learning_rate) not in shown:
                continue
            offset, colour = (-0.19, "0.35") if row.epochs == 50 else (0.19, "0.75")
            place = list(shown).index((row.shaping, row.learning_rate)) + offset
            if pd.notna(row.source):
                share = 100 * row.successes / row.targets
                axis.bar(place, share, 0.36, color=colour, edgecolor="black", lw=0.5)
                axis.text(place, share + 1, f"{share:.0f}", ha="center", fontsize=6)
            if pd.notna(row.published_successes):
                axis.plot(place, row.published_successes, ms=6, zorder=3, **mark)
        axis.set_xticks(range(len(shown)), list(shown.values()), fontsize=6)
        title = "one poison at a time" if mode == "oneshot" else "several together"
        axis.set(title=title, ylim=(0, 112), ylabel="targets hit, %")
    for colour, label in (("0.35", "50 epochs"), ("0.75", "25 epochs")):
        axes[1].bar(0, 0, color=colour, edgecolor="black", lw=0.5, label=label)
    axes[1].plot([], [], label="published", **mark)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_needed(_: dict[str, Table], results: Results):
    """Share of the targets that fall to at most k poisons together, a line for each shaping at the paper's rates."""
    cells = with_needed(results.trials)
    cells = cells[of_protocol(cells) & cells.at_rate].query("mode == 'multipoison' and network == 'lr'")
    if cells.empty:
        return None
    cells = frames.in_order(cells.sort_values("epochs"), ["clip_norm", "noise_multiplier"])
    figure, ((axis,),) = plotting.panels(1, width=5.2, height=3.0)
    most = int(cells.needed.max()) if cells.needed.notna().any() else 1
    counts = np.arange(1, most + 2)
    shapings = list(cells.shaping.unique())
    for (shaping, epochs), group in cells.groupby(["shaping", "epochs"], sort=False):
        clip_norm, noise = group.clip_norm.iloc[0], group.noise_multiplier.iloc[0]
        name = f"clip {clip_norm:g}".replace("clip inf", "undefended") + (f", noise {noise:g}" if noise else "")
        shares = [100 * (group.needed <= count).mean() for count in counts]
        style = {"ls": "-" if epochs == 50 else "--", "markevery": max(1, most // 8)}
        label = f"{name}, {epochs:g} epochs"
        axis.step(counts, shares, where="post", label=label, **look(shapings.index(shaping), **style))
    axis.set(xlabel="poisons together, at most", ylabel="targets hit, %", ylim=(0, 104))
    axis.legend(fontsize=7)
    return figure
