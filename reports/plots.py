"""What the page's plots show: which columns of its tables, against which. plots.js draws them, from the page's rows."""

from __future__ import annotations

import math

from reports import OUTSIDE, SHOWN_ONLY, UNFINISHED, WITHIN, clean_models, gradients, indiscriminate, targeted
from results.plotting import COLOURS

BLUE, ORANGE, PINK = COLOURS[1], COLOURS[2], COLOURS[4]
GREY = "#767676"
VERDICTS = [(WITHIN, BLUE), (OUTSIDE, ORANGE), (SHOWN_ONLY, GREY), (UNFINISHED, PINK)]  # those of rows with both


def panel(title: str, table: str, ours: str, published: str, names: list[str], tolerance: float = math.inf, **how):
    """A plot of published numbers against ours. names: the columns that a row is called by; tolerance: of the
    difference, or with relative=True of the quotient; infinite where the row is not judged by it; log=True: of both
    scales.
    """
    known = None if math.isinf(tolerance) else tolerance
    return {
        "title": title, "table": table, "ours": ours, "published": published, "names": names, "tolerance": known,
        "relative": False, "log": False, **how,
    }  # fmt: skip


def against() -> list[dict]:
    """A plot for each kind of published number."""
    of_models = ["data", "network", "shaping", "learning_rate"]
    insertions = [
        panel(title, "insertion", name, f"published_{name}", gradients.KEY, gradients.ACCURACIES[name])
        for title, name in (
            ("backdoors: clean accuracy, last epoch", "final_acc"),
            ("backdoors: success before training", "baseline_backdoor_acc"),
            ("backdoors: success after one epoch", "first_backdoor_acc"),
            ("backdoors: success, last epoch", "final_backdoor_acc"),
        )
    ]
    return [
        panel("indiscriminate attacks: best accuracy", "indiscriminate", "best_acc", "published_best_acc",
              ["attack", "ratio", "shaping"], indiscriminate.TOLERANCE),
        panel("gradients: mean norm ratio", "gradients", "mean_norm_ratio", "published_mean_norm_ratio",
              gradients.KEY, gradients.RATIO_TOLERANCE, relative=True, log=True),
        panel("gradients: mean cosine", "gradients", "mean_cosine", "published_mean_cosine", gradients.KEY,
              gradients.COSINE_TOLERANCE),
        panel("gradients: mean norm of poisons", "gradients", "mean_poison_norm", "published_mean_poison_norm",
              gradients.KEY, log=True),
        *insertions,
        panel("targeted attacks: targets hit", "tpoisoning", "successes", "published_successes",
              targeted.SETTING, targeted.TOLERANCE),
        panel("targeted attacks: poisons in the median", "tpoisoning", "median_poisons", "published_median_poisons",
              targeted.SETTING),
        panel("clean models: best accuracy", "models", "best_acc", "published_acc", of_models, clean_models.TOLERANCE),
        panel("clean models: epsilon at the published epoch", "models", "epsilon_at_published_epoch",
              "published_epsilon", of_models, clean_models.EPSILON_TOLERANCE, relative=True, log=True),
    ]  # fmt: skip


def curves() -> list[dict]:
    """What the curves of the indiscriminate sweeps may show against the ratio of poisons, the first one at first."""
    best = {"table": "indiscriminate", "column": "best_acc", "published": "published_best_acc"}
    return [
        {"text": "best epoch, one seed", **best},
        {"text": "last epoch, one seed", "table": "indiscriminate", "column": "final_acc"},
        {"text": "best epoch, mean over seeds", "table": "seeds", "column": "best_acc_mean", "half": "best_acc_ci95"},
        {"text": "last epoch, mean over seeds", "table": "seeds", "column": "final_acc_mean", "half": "final_acc_ci95"},
    ]


def settings() -> dict:
    """All that plots.js is told."""
    return {
        "against": against(), "curves": curves(), "verdicts": VERDICTS, "colours": list(COLOURS),
        "clip_norms": ["inf", *map(str, indiscriminate.CLIP_NORMS)],
    }  # fmt: skip
