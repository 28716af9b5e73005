"""The report's figures of results: each is drawn from the tables and cells that are there, and is gone when its results are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reports import Table, poison_pictures, published
from reports.gradients import BADNET, LR, MLP, SUBTASK, key
from reports.indiscriminate import CLIP_NORMS, NOISE_STDS, UNBOUNDED_CLIP_NORM
from reports.reading import Cell, Tree
from results import layout, plotting

FORMATS = ("png", "pdf")


@dataclass
class Figure:
    """A figure of the page. claims: letters of those that it belongs to; source: the CSV files that it is drawn from."""

    name: str
    caption: str
    claims: str
    source: str
    drawn: bool = False


def draw_all(tables: dict[str, Table], tree: Tree) -> list[Figure]:
    """Draw every figure as results/figures/<name>.png and .pdf; one whose results are not there is deleted."""
    drawings = []
    for attack, claims in (("label-flips", "c"), ("slabs", "f"), ("slabs-release", "f"), ("minmax", "c")):
        caption = (
            f"{attack}: test accuracy against the poison ratio by clip norm, without noise. Left: best epoch, seed {layout.SEED} (open marks: published)."
            " Right: last epoch, mean and 95% interval over seeds where there are several. Dotted: the clean baseline."
        )
        figure = Figure(f"indiscriminate_{attack}", caption, claims, "tables/indiscriminate.csv; tables/seeds.csv")
        drawings.append((figure, draw_indiscriminate, (attack, tables["indiscriminate"], tables["seeds"])))
    caption = (
        "Accuracy after the last epoch over clip norm and noise at ratio 0.4 (means over seeds where there are several; the left column of each panel is"
        " undefended training)."
    )
    drawings.append((Figure("clip_and_noise", caption, "cf", "tables/indiscriminate.csv; tables/seeds.csv"), draw_heat_map, (tables,)))
    caption = "Mean gradients of the last layer: norm of the poisons' over that of the clean rows', and their cosine, against the epoch. Open marks: published."
    drawings.append(
        (Figure("gradients", caption, "ab", "tables/gradients.csv; analysis/**/[ma]extracts_epoch.csv"), draw_gradients, (tree,))
    )
    caption = (
        "Gradient norms of single rows: 5 to 95% (line), 25 to 75% (bar) and median (tick) of the clean rows (grey) and of the poisons (black); each the"
        " median over the epochs."
    )
    drawings.append((Figure("examples", caption, "a", "analysis/**/sextracts_epoch.csv"), draw_examples, (tree,)))
    caption = (
        "Targets hit in per cent of those tried, logistic regression, within 50 epochs of re-training and within 25. Open marks: published, of"
        " Purchase-100."
    )
    drawings.append((Figure("targets_hit", caption, "de", "tables/tpoisoning.csv"), draw_targets, (tables["tpoisoning"],)))
    caption = "Poisons needed, several together: share of the targets that fall to at most so many. Dashed: within 25 epochs instead of 50."
    drawings.append((Figure("poisons_needed", caption, "e", "tpoisoning/clean-labels/multipoison/**/attack_w_*.csv"), draw_needed, (tree,)))
    caption = (
        "What the poisons look like. Backdoors are shown on a dress of the binary subtask; a basket is a 10 x 10 picture of its 100 goods. The targeted"
        " poison is all but equal to its target, and carries another label."
    )
    drawings.append((Figure("poisons", caption, "", "datasets/; analysis/tpoisoning/**/poison.csv"), poison_pictures.draw, ()))
    for figure, draw, arguments in drawings:
        drawn = draw(*arguments)
        figure.drawn = drawn is not None
        for suffix in FORMATS:
            path = layout.figures() / f"{figure.name}.{suffix}"
            plotting.save(drawn, path) if figure.drawn else path.unlink(missing_ok=True)
    return [figure for figure, _, _ in drawings]


def look(index: int, **more) -> dict:
    """Colour, marker and widths of the index-th line."""
    return {"color": plotting.COLOURS[index % 7], "marker": plotting.MARKERS[index % 7], "ms": 4, "lw": 1.2, **more}


def shaping_name(clip_norm: float | str) -> str:
    return clip_norm if clip_norm == "undefended" else f"clip {clip_norm:g}"


def draw_indiscriminate(attack: str, indiscriminate: Table, seeds: Table):
    """Accuracy against the poison ratio, a line for each clip norm without noise."""

    def lines_of(table: Table) -> dict[tuple, dict]:
        chosen = [line for line in table.lines if line["attack"] == attack and line["noise_multiplier"] == 0 and line.get("source")]
        return {(line["clip_norm"], line["ratio"]): line for line in chosen if line["clip_norm"] != UNBOUNDED_CLIP_NORM}

    cells, over_seeds = lines_of(indiscriminate), lines_of(seeds)
    if not cells:
        return None
    figure, (axes,) = plotting.panels(2, height=3.2)
    baseline = next(iter(cells.values()))["baseline_acc"]
    for index, clip_norm in enumerate(["undefended", *CLIP_NORMS]):
        ratios = sorted(ratio for clip, ratio in cells if clip == clip_norm)
        if not ratios:
            continue
        chosen = [cells[clip_norm, ratio] for ratio in ratios]
        axes[0].plot(ratios, [line["best_acc"] for line in chosen], label=shaping_name(clip_norm), **look(index))
        known = [line for line in chosen if line["published_best_acc"] != ""]
        axes[0].plot(
            [line["ratio"] for line in known], [line["published_best_acc"] for line in known], **look(index, ls="", mfc="none", ms=9)
        )
        several = [over_seeds.get((clip_norm, line["ratio"]), {}) for line in chosen]
        finals = np.array([line.get("final_acc_mean", cell["final_acc"]) for line, cell in zip(several, chosen)])
        intervals = np.array([line.get("final_acc_ci95", 0.0) for line in several])
        axes[1].plot(ratios, finals, label=shaping_name(clip_norm), **look(index))
        axes[1].fill_between(ratios, finals - intervals, finals + intervals, color=look(index)["color"], alpha=0.15, lw=0)
    for axis, title in zip(axes, ("best epoch (open: published)", "last epoch, over seeds")):
        axis.axhline(baseline, color="0.5", ls=":", lw=1)
        axis.set(title=title, xlabel="poisons per clean row", xscale="log", ylabel="test accuracy")
        ticks = sorted({ratio for _, ratio in cells})
        axis.set_xticks(ticks, [f"{ratio:g}" for ratio in ticks], rotation=60)
        axis.minorticks_off()
    low = min(axis.get_ylim()[0] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, baseline + 0.005)
    axes[1].legend(ncols=2, loc="lower left")
    return figure


def draw_heat_map(tables: dict[str, Table]):
    """Final accuracy by clip norm and noise at ratio 0.4, a panel an attack."""
    attacks = ("label-flips", "slabs")
    over_seeds = {
        (line["attack"], line["ratio"], line["clip_norm"], line["noise_multiplier"]): line["final_acc_mean"]
        for line in tables["seeds"].lines
    }
    finals = {}
    for line in tables["indiscriminate"].lines:
        place = (line["attack"], line["ratio"], line["clip_norm"], line["noise_multiplier"])
        if line.get("source") and line["ratio"] == 0.4:
            finals[line["attack"], line["clip_norm"], line["noise_multiplier"]] = over_seeds.get(place, line["final_acc"])
    shown = [attack for attack in attacks if any(place[0] == attack for place in finals)]
    if not shown:
        return None
    figure, (axes,) = plotting.panels(len(shown), height=2.9)
    stds = sorted(NOISE_STDS)
    for axis, attack in zip(axes, shown):
        rows = [[finals.get((attack, clip, float(f"{std / clip:.12g}")), math.nan) for std in stds] for clip in CLIP_NORMS]
        values = np.column_stack([np.full(len(CLIP_NORMS), finals.get((attack, "undefended", 0.0), math.nan)), rows])
        image = axis.imshow(values, cmap="cividis", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (row, column), value in np.ndenumerate(values):
            axis.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=7, color="white" if value < middle else "black")
        axis.set_xticks(range(len(stds) + 1), ["undefended", *(f"{std:g}" for std in stds)], fontsize=7)
        axis.set_yticks(range(len(CLIP_NORMS)), [f"{clip:g}" for clip in CLIP_NORMS])
        axis.set(title=f"{attack}, ratio 0.4", xlabel="standard deviation of the noise", ylabel="clip norm")
        axis.grid(False)
        figure.colorbar(image, ax=axis)
    return figure


def draw_gradients(tree: Tree):
    """Norm ratios and cosines against the epoch, a column a set; the published ones as open marks."""
    cells = {key(cell.path): cell for cell in tree.analyses}
    columns = (
        ("watermarks, LR", [(f"alpha {alpha}", ("collision", "pairs_of_100", SUBTASK, f"alpha_{alpha}", LR)) for alpha in (0.1, 0.4, 1.0)]),
        ("watermarks, MLP", [(f"alpha {alpha}", ("collision", "pairs_of_100", "fashion_mnist", f"alpha_{alpha}", MLP)) for alpha in (0.1, 0.4, 1.0)]),
        ("backdoors, BadNet", [(f"patch {patch}", ("insertion", "insertion", "fashion_mnist", f"4_0.01_{patch}", BADNET)) for patch in (1, 4, 10)]),
        ("indiscriminate, LR", [
            ("label flips", ("ipoisoning", "label-flips", SUBTASK, f"{SUBTASK}_random_0.4", LR)),
            ("slabs", ("ipoisoning", "slabs", SUBTASK, "fmnist_34_attack_eps40_quantile65_rho_slab", LR)),
        ]),
    )  # fmt: skip
    if not any(name in cells for _, members in columns for _, name in members):
        return None
    known: dict[tuple, list] = {}
    for line in published("gradients"):
        name = (line["analysis"], line["task"], line["dataset"], line["setting"].removesuffix(".mat").removesuffix("_v7"), line["model"])
        known.setdefault(name, []).append([float(line[column]) for column in ("clean_norm", "poison_norm", "cosine")])
    figure, axes = plotting.panels(len(columns), 2, width=2.5, height=2.2)
    for (title, members), (ratios, cosines) in zip(columns, axes.T):
        for index, (label, name) in enumerate(members):
            for epochs, style in (
                (cells[name].means if name in cells else None, {"marker": ""}),
                (known.get(name), {"ls": "", "mfc": "none", "markevery": 4}),
            ):
                if epochs is None:
                    continue
                clean, poison, cosine = np.array(epochs).T
                numbers = np.arange(1, len(clean) + 1)
                ratios.plot(numbers, poison / clean, label=None if "mfc" in style else label, **look(index, **style))
                cosines.plot(numbers, cosine, **look(index, **style))
        ratios.axhline(1, color="0.5", ls=":", lw=1)
        ratios.set(title=title, yscale="log", ylim=(0.3, 1500), ylabel="norm ratio" if ratios is axes[0, 0] else None)
        cosines.set(xlabel="epoch", ylim=(-1.08, 1.08), ylabel="cosine" if cosines is axes[1, 0] else None)
        if any(name in cells for _, name in members):
            ratios.legend(fontsize=7)
    return figure


def draw_examples(tree: Tree):
    """Quantiles of the gradient norms of single rows, clean beside poison, a group for each undefended analysis."""
    chosen: list[tuple[str, Cell]] = []
    for cell in tree.analyses:
        analysis, group, data, setting, model = key(cell.path)
        if cell.examples is None or not model.startswith("vanilla") or group.startswith("a_pair") or group.endswith("_retrain"):
            continue
        network = {LR: "LR", MLP: "MLP", BADNET: "BadNet"}.get(model, cell.settings["network"])
        kind = {"collision": "watermark, ", "insertion": "patch ", "tpoisoning": "targeted, "}.get(analysis, f"{group} ")
        setting = {"ipoisoning": "0.4", "insertion": setting.rsplit("_", 1)[-1], "tpoisoning": setting}.get(
            analysis, setting.replace("_", " ")
        )
        chosen.append((f"{kind}{setting} ({network})", cell))
    if not chosen:
        return None
    chosen.sort(key=lambda item: layout.natural_order(item[0]))
    figure, ((axis,),) = plotting.panels(1, width=7.5, height=0.2 * len(chosen) + 0.8)
    for place, (_, cell) in enumerate(reversed(chosen)):
        for offset, colour, norms in ((0.18, "0.6", cell.examples[:, 0]), (-0.18, "black", cell.examples[:, 1])):
            low, lower, middle, upper, high = np.nanmedian(norms, axis=0)
            axis.plot([low, high], [place + offset] * 2, color=colour, lw=0.8)
            axis.plot([lower, upper], [place + offset] * 2, color=colour, lw=4, solid_capstyle="butt")
            axis.plot([middle], [place + offset], color="#D55E00", marker="|", ms=7, mew=1.8)
    axis.set_yticks(range(len(chosen)), [label for label, _ in reversed(chosen)], fontsize=7)
    axis.set(xscale="log", xlabel="norm of a single row's gradient, last layer", ylim=(-0.7, len(chosen) - 0.3))
    axis.set_xlim(left=max(axis.get_xlim()[0], 1e-9))
    return figure


def draw_targets(targeted: Table):
    """Per cent of targets hit, a bar for each shaping, mode and number of epochs."""
    lines = [line for line in targeted.lines if line["network"] == "lr" and line["epochs"] in (50, 25)]
    if not any(line.get("source") for line in lines):
        return None
    shapings = [
        ("undefended", 0.0, 0.04),
        (0.1, 0.0, 0.08),
        (0.1, 0.0, 0.04),
        (1.0, 0.0, 0.08),
        (4.0, 0.0, 0.08),
        (4.0, 0.0, 0.04),
        (4.0, 0.0025, 0.08),
    ]
    labels = ["undefended", "clip 0.1", "clip 0.1,\nsame\nrate", "clip 1", "clip 4", "clip 4,\nsame\nrate", "clip 4,\nnoise\n0.0025"]
    figure, (axes,) = plotting.panels(2, width=4.2, height=2.9)
    for axis, mode in zip(axes, ("oneshot", "multipoison")):
        for offset, epochs, colour in ((-0.19, 50, "0.35"), (0.19, 25, "0.75")):
            for place, (clip_norm, noise, rate) in enumerate(shapings):
                wanted = {"mode": mode, "clip_norm": clip_norm, "noise_multiplier": noise, "learning_rate": rate, "epochs": epochs}
                for line in lines:
                    if any(line[name] != value for name, value in wanted.items()):
                        continue
                    if line.get("source"):
                        share = 100 * line["successes"] / line["targets"]
                        axis.bar(place + offset, share, 0.36, color=colour, edgecolor="black", lw=0.5)
                        axis.text(place + offset, share + 1, f"{share:.0f}", ha="center", fontsize=6)
                    if "published_successes" in line:
                        axis.plot(
                            place + offset, line["published_successes"], marker="D", ms=6, mfc="white", color="#D55E00", ls="", zorder=3
                        )
        axis.set_xticks(range(len(labels)), labels, fontsize=6)
        axis.set(title="one poison at a time" if mode == "oneshot" else "several together", ylim=(0, 112), ylabel="targets hit, %")
    for colour, label in (("0.35", "50 epochs"), ("0.75", "25 epochs")):
        axes[1].bar(0, 0, color=colour, edgecolor="black", lw=0.5, label=label)
    axes[1].plot([], [], marker="D", mfc="white", color="#D55E00", ls="", label="published")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_needed(tree: Tree):
    """Share of the targets that fall to at most k poisons together, a line for each shaping at the paper's learning rates."""
    groups: dict[tuple, list[float]] = {}
    for cell in tree.trials:
        settings = cell.settings
        rate = 0.04 if settings["clip_norm"] is None else 0.08
        if (
            settings["mode"] != "multipoison"
            or settings["network"] != "lr"
            or settings["learning_rate"] != rate
            or settings["seed"] != layout.SEED
        ):
            continue
        hits = [int(line["poison"]) for line in cell.lines if line["success"] == "True" and line["poison"] != "0"]
        place = (settings["clip_norm"] or 0.0, settings["noise_multiplier"], settings["epochs"])
        groups.setdefault(place, []).append(min(hits, default=math.inf))
    if not groups:
        return None
    figure, ((axis,),) = plotting.panels(1, width=5.2, height=3.0)
    shapings = sorted({place[:2] for place in groups})
    most = int(max((count for needed in groups.values() for count in needed if count < math.inf), default=1))
    for (clip_norm, noise, epochs), needed in sorted(groups.items()):
        counts = np.arange(1, most + 2)
        shares = [100 * np.mean(np.array(needed) <= count) for count in counts]
        name = shaping_name(clip_norm or "undefended") + (f", noise {noise:g}" if noise else "")
        style = {"ls": "-" if epochs == 50 else "--", "markevery": max(1, most // 8)}
        axis.step(counts, shares, where="post", label=f"{name}, {epochs} epochs", **look(shapings.index((clip_norm, noise)), **style))
    axis.set(xlabel="poisons together, at most", ylabel="targets hit, %", ylim=(0, 104))
    axis.legend(fontsize=7)
    return figure
