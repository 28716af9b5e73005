"""The tables of figures in the documents, line by line, as the committed results have them."""

from __future__ import annotations

import pandas as pd
from quoted import SUBTASK, beside, line, of, read, row, written


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


BENCHMARKS = "tests/benchmarks/README.md"


def significant(number: float) -> str:
    """Three significant digits, but no more than four places."""
    return f"{number:.4f}" if number < 0.01 else f"{number:#.3g}".rstrip(".")


@of(BENCHMARKS)
def peers():
    yield line("work", "stack", "plain Keras", "TensorFlow Privacy, its best",
               "Opacus, its best; in the first line (b) PyTorch", "JAX", "arithmetic limit")  # fmt: skip
    table = read("tests/benchmarks/peers.csv")
    for unit, name in (
        ("a", "(a) logistic regression 784-2, batch 300, clip norm and noise, 21 replicas"),
        ("b", "(b) logistic regression 100-100, batch 100, undefended, 40 replicas"),
        ("b, DP", "(b) the same with clip norm"),
        ("c", "(c) MLP 100-256-256-100, batch 100, clip norm and noise, 16 replicas"),
        ("d", "(d) BadNet, batch 100, clip norm, alone"),
    ):
        mine = table[table.unit == unit]
        cells = []
        for peer in ("Keras", "TF-Privacy", "Opacus|PyTorch", "JAX"):
            found = mine[mine.what.str.match(peer)]
            best = found.nsmallest(1, "ms_per_step_and_replica")
            cells += [f"{significant(one.ms_per_step_and_replica)} ({times(one.times_the_stack)} x)"
                      for _, one in best.iterrows()] or [""]  # fmt: skip
        limit = row(mine, what="arithmetic limit")
        least = f"{significant(limit.ms_per_step_and_replica)} (1/{1 / limit.times_the_stack:.1f})"
        yield line(name, significant(row(mine, what="stack").ms_per_step_and_replica), *cells, least)


def times(ratio: float) -> str:
    return written(ratio, ".2f" if ratio < 10 else ".1f" if ratio < 100 else ".0f")


@of(BENCHMARKS)
def costs():
    works = ("lr 784-2, batch 300", "lr 100-100, batch 100", "MLP 100-256-256-100, batch 100")
    yield line("shaping", *works, "bound", "peers on lr 784-2, batch 300, ms")
    table = read("tests/benchmarks/shapings.csv")
    for shaping in table.shaping.drop_duplicates():
        found = [row(table, work=work, shaping=shaping) for work in works]
        bound = found[0].bound
        yield line(f"`{shaping}`",
                   *(f"{one.ms_per_step_and_replica:.4f} ({written(one.times_clip, '.2f')} x)" for one in found),
                   f"{bound:g} x" if 1 < bound < 100 else "",
                   "" if pd.isna(found[0].peers_ms) else found[0].peers_ms)  # fmt: skip
