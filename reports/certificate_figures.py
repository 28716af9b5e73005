"""The figure of the certificates: what is proven, beside what attacks reach."""

from __future__ import annotations

import pandas as pd

from reports import Table, certificates
from reports.reading import Results
from results import layout, plotting, words


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
    figure, axes = plotting.panels(3, 2, width=3.2, height=3.0)
    counts = sorted(rows.poisons.unique())
    for axis, ((rate, epochs, _, text, *_), group) in zip(axes[0], trainings):
        draw_training(axis, group)
        title = f"{words.shaping(text)}, rate {rate:g}, {words.counted([epochs], 'epoch')}"
        axis.set_title(f"{title}, {words.counted(group.seeds, 'seed')}", fontsize=8)
    best = certificates.best_of_each(settings)
    looks = {kind: plotting.look(index) for index, kind in enumerate(dict.fromkeys(settings.certificate))}
    for kind in best:
        axes[1, 0].plot(best.index, best[kind], label=kind, **looks[kind])
    axes[1, 0].set_title(f"best setting of each certificate, seed {layout.SEED}", fontsize=8)
    for axis in (*axes[0][: len(trainings)], axes[1, 0]):
        axis.set(xscale="log", ylim=(-0.03, 1), xlabel="substituted rows")
        axis.set_xticks(counts, [f"{count:g}" for count in counts], rotation=90, fontsize=8)
        axis.minorticks_off()
    certified = [count for count in counts if f"certified_at_{count:g}" in settings]
    chosen = dict.fromkeys(certified[int(part * (len(certified) - 1))] for part in (0.4, 0.9) if certified)
    for axis, count in zip(axes[1, 1:], chosen):
        draw_settings(axis, settings, f"certified_at_{count:g}", looks)
        axis.set_title(f"every setting, {count:g} substituted rows, seed {layout.SEED}", fontsize=8)
    for axis in (*axes[0, len(trainings) :], *axes[1, 1 + len(chosen) :]):
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("test accuracy")
    for axis in axes.flat:
        if axis.axison:
            plotting.legend_under(axis, columns=3 if axis is axes[1, 0] else 2)
    return figure


def draw_training(axis, group: pd.DataFrame) -> None:
    """What is certified of a training, and what attacks leave of it."""
    axis.fill_between(group.poisons, group.certified_acc, group.attacked_acc, color="0.9", lw=0)
    axis.plot(group.poisons, group.attacked_acc, label="worst attack", **plotting.look(2))
    axis.plot(group.poisons, group.certified_acc, label="certified", **plotting.look(1))
    axis.axhline(group.clean_acc.iloc[0], color="0.5", ls=":", lw=1)


def draw_settings(axis, settings: pd.DataFrame, column: str, looks: dict[str, dict]) -> None:
    """Certified against clean accuracy, a point a setting, and the best that can be had; looks: of the certificates."""
    # what there is most of lies lowest, so that it hides nothing
    for kind in settings.certificate.value_counts().index:
        group = settings[settings.certificate == kind]
        axis.plot(group.clean_acc, group[column], label=kind, **looks[kind] | {"ls": "", "ms": 3})
    known = settings.dropna(subset=["clean_acc", column]).sort_values("clean_acc")
    axis.step(known.clean_acc, known[column][::-1].cummax()[::-1], where="pre", color="0.5", lw=1, label="envelope")
    axis.set(xlabel="clean accuracy", ylim=(-0.03, 1))
