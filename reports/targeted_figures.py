"""The figures of the targeted attacks: success by dose, targets hit, and poisons needed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports import Table, frames
from reports.frames import MODES
from reports.reading import Results
from reports.targeted import of_protocol, with_needed
from results import layout, plotting, words

BARS = {  # of the targets hit: shaping and learning rate, in words
    ("undefended", 0.04): "undefended", ("0.1", 0.08): "clip norm\n0.1", ("0.1", 0.04): "clip norm\n0.1,\nsame rate",
    ("1", 0.08): "clip norm\n1", ("4", 0.08): "clip norm\n4", ("4", 0.04): "clip norm\n4,\nsame rate",
    ("4:0.0025", 0.08): "clip norm\n4, noise\n0.0025",
}  # fmt: skip


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
    figure, (axes,) = plotting.panels(len(panels), width=3.4, height=3.6)
    looks, shown = plotting.shaping_looks(rows.shaping), []
    for axis, (title, chosen) in zip(axes, panels.items()):
        shown.append(rows[chosen])
        for place, (text, curve) in enumerate(rows[chosen].groupby("shaping", sort=False)):
            look = looks[text] | {"ms": max(7 - place, 3)}  # of marks that meet, all can be seen
            axis.plot(curve.radius, 100 * curve.share, label=words.shaping(text), **look)
            ends = 100 * curve.share_low, 100 * curve.share_high
            axis.fill_between(curve.radius, *ends, color=look["color"], alpha=0.1, lw=0)
        matched = rows[alone & rows.matched].radius
        axis.axvline(matched.iloc[0], color="0.5", ls=":", lw=1) if len(matched) else None
        axis.set(xscale="log", xlabel="L2 distance that a poison may move", ylim=(-3, 103))
        axis.set_title(title, fontsize=9)
        axis.set_xticks(sorted(rows.radius.unique()), [f"{radius:g}" for radius in sorted(rows.radius.unique())])
        axis.minorticks_off()
        plotting.legend_under(axis)
    axes[0].set_ylabel("targets hit, %")
    targets = words.counted(pd.concat(shown).targets, "target")
    plotting.note(figure, f"a point is the share of {targets}, one model of seed {layout.SEED} a shaping and rate")
    return figure


def draw_targets(tables: dict[str, Table], _: Results):
    """Per cent of targets hit, a bar for each shaping, mode and number of epochs."""
    rows = tables["tpoisoning"].frame.query("network == 'lr' and epochs in (50, 25)")
    if rows.source.isna().all():
        return None
    mark = {"marker": "D", "mfc": "white", "color": "#D55E00", "ls": ""}
    figure, axes = plotting.panels(1, 2, width=7, height=2.4)
    for axis, mode in zip(axes.flat, MODES):
        for row in rows[rows["mode"] == mode].itertuples():
            if (row.shaping, row.learning_rate) not in BARS:
                continue
            offset, colour = (-0.19, "0.35") if row.epochs == 50 else (0.19, "0.75")
            place = list(BARS).index((row.shaping, row.learning_rate)) + offset
            if pd.notna(row.source):
                share = 100 * row.successes / row.targets
                axis.bar(place, share, 0.36, color=colour, edgecolor="black", lw=0.5)
                axis.text(place, share + 2, f"{share:.0f}", ha="center", fontsize=7)
            if pd.notna(row.published_successes):
                axis.plot(place, row.published_successes, ms=6, zorder=3, **mark)
        axis.set_xticks(range(len(BARS)), list(BARS.values()), fontsize=8)
        axis.set_xlim(-0.6, len(BARS) - 0.4)
        title = "one poison at a time" if mode == "oneshot" else "several together"
        axis.set(title=title, ylim=(0, 118), ylabel="targets hit, %")
    last = axes[-1, 0]
    bars = [last.bar(0, 0, color=colour, edgecolor="black", lw=0.5) for colour in ("0.35", "0.75")]
    (published,) = last.plot([], [], **mark)
    plotting.legend_below(figure, [*bars, published], ["50 epochs", "25 epochs", "published"])
    known = pd.Series([key in BARS for key in zip(rows.shaping, rows.learning_rate)], rows.index)
    targets = words.counted(rows[known & rows.source.notna()].targets, "target")
    plotting.note(figure, f"a bar is the share of {targets}, one model of seed {layout.SEED} a shaping and rate")
    return figure


def draw_needed(_: dict[str, Table], results: Results):
    """Share of the targets that fall to at most k poisons together, a line for each shaping at the paper's rates."""
    cells = with_needed(results.trials)
    cells = cells[of_protocol(cells) & cells.at_rate].query("mode == 'multipoison' and network == 'lr'")
    if cells.empty:
        return None
    cells = frames.in_order(cells.sort_values("epochs"), ["clip_norm", "noise_multiplier"])
    figure, ((axis,),) = plotting.panels(1, width=6.4, height=4.2)
    most = int(cells.needed.max()) if cells.needed.notna().any() else 1
    counts, groups = np.arange(1, most + 2), cells.groupby(["shaping", "epochs"], sort=False)
    looks = plotting.shaping_looks(cells.shaping)
    for place, ((shaping, epochs), group) in enumerate(groups):
        shares = np.array([100 * (group.needed <= count).mean() for count in counts])
        look = looks[shaping] | {"ls": "-" if epochs == 50 else "--", "markevery": []}
        label = f"{words.shaping(shaping)}, {words.counted([epochs], 'epoch')}"
        axis.step(counts, shares, where="post", label=label, **look)
        # beside each other on the steps: at their beginnings, marks of equal shares would hide each other
        steps = slice(None, -1, max(1, most // 8))
        axis.plot(counts[steps] + (place + 1) / (len(groups) + 1), shares[steps], **look | {"ls": "", "markevery": 1})
    axis.set(xlabel="poisons together, at most", ylabel="targets hit, %", ylim=(0, 104))
    plotting.whole_ticks(axis.xaxis)
    handles, labels = axis.get_legend_handles_labels()
    plotting.legend_below(figure, handles, labels, fontsize=7)
    targets = words.counted(groups.size(), "target")
    told = f"a line is of {targets}, one model of seed {layout.SEED} a shaping; marks are spread over their steps"
    plotting.note(figure, told)
    return figure
