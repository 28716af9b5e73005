"""The claims on gradients: (a) those of poisons are larger, (b) they point elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from reports import Table
from reports.gradients import ALPHAS, BADNET, BASKETS, BASKETS_LR, INCOMPARABLE, LR, MLP, PATCHES, SUBTASK
from reports.indiscriminate import CLEAN_ROWS
from reports.verdicts import CONTROL, PROTOCOL, Check, Claim, find, sources, span

DIFFERENT_COSINE = 0.5  # an angle of 60 degrees
STATIONARY = 0.05
# name, analysis, set, data, model, settings, clean rows: undefended trainings, the published ones and the targeted one of the stand-in
SETS = (
    (
        "watermarks, 100 pairs, logistic regression",
        "collision",
        "pairs_of_100",
        SUBTASK,
        LR,
        [f"alpha_{alpha}" for alpha in ALPHAS],
        CLEAN_ROWS,
    ),
    (
        "watermarks, 100 pairs, shallow MLP",
        "collision",
        "pairs_of_100",
        "fashion_mnist",
        MLP,
        [f"alpha_{alpha}" for alpha in ALPHAS],
        60000,
    ),
    ("backdoors, BadNet", "insertion", "insertion", "fashion_mnist", BADNET, [f"4_0.01_{patch}" for patch in PATCHES], 60000),
    ("label flips, 0.4", "ipoisoning", "label-flips", SUBTASK, LR, [f"{SUBTASK}_random_0.4"], CLEAN_ROWS),
    ("slabs, 0.4", "ipoisoning", "slabs", SUBTASK, LR, ["fmnist_34_attack_eps40_quantile65_rho_slab"], CLEAN_ROWS),
    ("targeted, one target", "tpoisoning", BASKETS[0], None, BASKETS_LR, [BASKETS[2]], 10000),
)


def gradient_checks(
    gradients: Table, kind: str, text: str, column: str, passes: Callable[[float, dict, int], bool], published: str = "", but: tuple = ()
) -> list[Check]:
    """A check a set: that `passes` holds of a column in each of its settings; `but`: names of sets that are left out."""
    checks = []
    for name, analysis, group, data, model, settings, clean_rows in SETS:
        if name in but:
            continue
        lines = [
            line
            for line in find(gradients.lines, analysis=analysis, set=group)
            if line["setting"] in settings and shortened(line["model"], model)
        ]
        lines = [line for line in lines if data in (None, line["dataset"]) and line.get(column, "") != ""]
        check = Check(kind, f"{name}: {text}")
        if lines:
            values = [line[column] for line in lines]
            check.measured, check.source = span(values), sources(lines)
            check.passed = all(passes(value, line, clean_rows) for value, line in zip(values, lines))
            known = [
                line[published] for line in lines if line.get(published, "") != "" and (line["setting"], line["model"]) != INCOMPARABLE
            ]
            check.published = span(known) if known else ""
        checks.append(check)
    return checks


def shortened(model: str, whole: str) -> bool:
    """Whether a model's name is this one, be it with fewer epochs."""
    parts, wanted = model.split("_"), whole.split("_")
    return len(parts) == len(wanted) and all(part == other for number, (part, other) in enumerate(zip(parts, wanted)) if number != 3)


def larger_gradients(gradients: Table) -> Claim:
    claim = Claim(
        "a", "Poison gradients are larger",
        "The mean gradient of the poisons has a larger norm than that of the clean rows, in every kind of attack.",
    )  # fmt: skip
    claim.checks += gradient_checks(
        gradients,
        PROTOCOL,
        "mean norm ratio above 1 in every setting",
        "mean_norm_ratio",
        lambda ratio, *_: ratio > 1,
        "published_mean_norm_ratio",
    )
    claim.checks += gradient_checks(
        gradients, CONTROL, "single rows: the median poison's gradient is larger than the median clean row's", "median_example_ratio",
        lambda ratio, *_: ratio > 1,
    )  # fmt: skip

    def not_arithmetic(ratio: float, line: dict, clean_rows: int) -> bool:
        return abs(ratio / (clean_rows / float(line["n_poison"])) - 1) > STATIONARY

    claim.checks += gradient_checks(
        gradients, CONTROL,
        f"the ratio is not clean rows / poisons (by {STATIONARY:.0%}), which any split of the rows has at a stationary point, where its parts cancel",
        "mean_norm_ratio", not_arithmetic,
    )  # fmt: skip
    return claim


def other_orientation(gradients: Table) -> Claim:
    claim = Claim(
        "b", "Poison gradients point elsewhere",
        "The mean gradient of the poisons has another orientation than that of the clean rows, in every kind of attack.",
    )  # fmt: skip
    claim.checks += gradient_checks(
        gradients, PROTOCOL, f"mean cosine below {DIFFERENT_COSINE} in every setting", "mean_cosine", lambda cosine, *_: cosine < DIFFERENT_COSINE,
        "published_mean_cosine",
    )  # fmt: skip
    claim.checks += gradient_checks(
        gradients, CONTROL, f"single rows: three poisons in four have a cosine below {DIFFERENT_COSINE} to their batch's mean clean gradient",
        "upper_quartile_example_cosine", lambda cosine, *_: cosine < DIFFERENT_COSINE,
    )  # fmt: skip
    return claim
