"""The figures of the gradient analyses: mean gradients by epoch, and the norms of single rows."""

from __future__ import annotations

import pandas as pd

from reports import Table, frames, nulls
from reports.gradients import published_lines
from reports.reading import QUANTILES, Results
from results import layout, plotting, words

PAIRS = {f"alpha {alpha}": f"set == 'pairs_of_100' and setting == 'alpha_{alpha}'" for alpha in (0.1, 0.4, 1.0)}
PANELS = {  # of the mean gradients: its title, and the rows of its lines
    "watermarks, logistic regression": {label: f"{query} and network == 'lr'" for label, query in PAIRS.items()},
    "watermarks, shallow MLP": {label: f"{query} and network == 'shallow-mlp'" for label, query in PAIRS.items()},
    "backdoors, BadNet": {
        f"patch {patch}": f"network == 'badnet' and setting == '4_0.01_{patch}'" for patch in (1, 4, 10)
    },
    "indiscriminate, logistic regression": {"label flips": "set == 'label-flips'", "slabs": "set == 'slabs'"},
}
CLEAN, POISON, NULL, MEDIAN = "0.6", "black", "#56B4E9", "#D55E00"  # colours of single rows
LEAST_NORM = 1e-9  # where the axis begins; bars that go further are cut off, else they would squeeze the others


def draw_gradients(tables: dict[str, Table], results: Results):
    """Norm ratios and cosines against the epoch, a column a set; the published ones as open marks."""
    rows = tables["gradients"].frame.query("planned == True and shaping == 'undefended'")
    chosen = [
        (title, [(label, rows.query(query).iloc[0]) for label, query in panel.items()])
        for title, panel in PANELS.items()
    ]
    if not any(pd.notna(row.source) for _, panel in chosen for _, row in panel):
        return None
    known = published_lines(rows, frames.published("gradients"))
    figure, axes = plotting.panels(len(PANELS), 2, width=2.5, height=2.4)
    for (title, panel), (ratios, cosines) in zip(chosen, axes.T):
        draw_bands(panel[0][1], results.nulls, {"norm_ratio": ratios, "cosine": cosines})
        for place, (look, (label, row)) in enumerate(zip(plotting.shades(len(panel)), panel)):
            measured, beside = results.analyses.lines.query("index == @row.cell"), known[known.row == row.name]
            for lines, style in (
                (measured, {"marker": "", "label": label, "lw": 1.9 - 0.35 * place}),  # of equal lines, all are seen
                (beside, {"ls": "", "mfc": "none", "markevery": 4}),
            ):
                if len(lines):
                    epochs = range(1, len(lines) + 1)
                    ratios.plot(epochs, lines.poison_norm / lines.clean_norm, **look | style)
                    cosines.plot(epochs, lines.cosine, **look | style)
        ratios.axhline(1, color="0.5", ls=":", lw=1)
        ratios.set_title(title, fontsize=8)
        ratios.set(yscale="log", ylim=(0.3, 1500), ylabel="norm ratio" if ratios is axes[0, 0] else None)
        cosines.set(xlabel="epoch", ylim=(-1.08, 1.08), ylabel="cosine" if cosines is axes[1, 0] else None)
        for axis in (ratios, cosines):
            plotting.whole_ticks(axis.xaxis)
        if any(pd.notna(row.source) for _, row in panel):
            plotting.legend_under(cosines)
    plotting.note(figure, f"a line is one training, of seed {layout.SEED}; open marks: published")
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
    figure, ((axis,),) = plotting.panels(1, width=8, height=0.2 * len(rows) + 1.3)
    for place, (_, cell) in enumerate(reversed(rows)):
        quantiles = results.analyses.lines.loc[[cell], QUANTILES].median()
        if cell in beside.index:
            null = quantiles.iloc[2] * beside.loc[cell, ["null_low", "null_high"]].astype(float)
            axis.plot(null, [place - 0.18] * 2, color=NULL, lw=6, alpha=0.6, solid_capstyle="butt", zorder=0)
        for offset, colour, norms in ((0.18, CLEAN, quantiles.iloc[:5]), (-0.18, POISON, quantiles.iloc[5:10])):
            low, lower, middle, upper, high = norms
            axis.plot([low, high], [place + offset] * 2, color=colour, lw=0.8)
            axis.plot([lower, upper], [place + offset] * 2, color=colour, lw=4, solid_capstyle="butt")
            axis.plot([middle], [place + offset], color=MEDIAN, marker="|", ms=7, mew=1.8)
    axis.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)], fontsize=7)
    axis.set(xscale="log", ylim=(-0.7, len(rows) - 0.3), xlabel="norm of a single row's gradient, last layer")
    cut = f"; below {LEAST_NORM:g}: cut off" * (axis.get_xlim()[0] < LEAST_NORM)
    axis.set_xlim(left=max(axis.get_xlim()[0], LEAST_NORM))
    bars = [plotting.plt.Line2D([], [], color=colour, lw=4) for colour in (CLEAN, POISON, NULL)]
    median = plotting.plt.Line2D([], [], color=MEDIAN, ls="", marker="|", ms=7, mew=1.8)
    said = ["clean rows, 25 to 75%", "poisons, 25 to 75%", "duplicates, 95% of medians", "median"]
    plotting.legend_below(figure, [*bars, median], said)
    plotting.note(figure, f"a pair of bars is one training, of seed {layout.SEED}: medians over its epochs{cut}")
    return figure


def example_label(row) -> str:
    """What an analysis is called in the figure of single rows."""
    network = words.NETWORKS.get(row.network, row.network)
    return {
        "collision": f"watermark, {row.setting.replace('_', ' ')}, {network}",
        "insertion": f"patch {row.patch:.0f}, {network}",
        "tpoisoning": f"targeted, {row.setting}, {network}",
        "ipoisoning": f"{words.ATTACKS.get(row.set, row.set)} {row.ratio:g}, {network}",
    }[row.analysis]
