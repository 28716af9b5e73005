"""The targeted attacks: on how many targets each succeeds, with how many poisons, and on how many the model errs without any."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from models.protocols import PROTOCOLS, Shaping
from reports import published, write_table
from results import layout
from results.cells import read_all

TARGETS = 100  # the paper's
RETRAIN_EPOCHS = 50
SETTING = ("mode", "network", "clip_norm", "noise_multiplier", "learning_rate", "epochs", "budget", "dataset")
HEADER = (
    *SETTING, "clean_acc", "targets", "successes", "without_poison", "median_poisons", "median_epoch", "published_successes", "published_median_poisons",
    "state", "source",
)  # fmt: skip


def report() -> None:
    """Write and print the table tpoisoning."""
    table = targeted_table(read_all(layout.RESULTS / "tpoisoning", "attack_w_*.csv"))
    write_table("tpoisoning", HEADER, table)
    print_targeted(table)


def targeted_table(found: list[tuple[Path, dict, list[dict]]]) -> list[dict]:
    """A line for each setting of which a target is finished, and for each published one that has none."""
    groups = {}
    for path, settings, lines in found:
        if settings["seed"] == layout.SEED:
            groups.setdefault(setting_of(settings), []).append((path, settings, lines))
    table = [measured(setting, targets) for setting, targets in groups.items()]
    known = published_successes()
    compared = set()
    for line in table:
        place = (line["mode"], line["network"], line["clip_norm"], line["noise_multiplier"])
        shaping = Shaping() if line["clip_norm"] == "undefended" else Shaping(line["clip_norm"])
        protocol = PROTOCOLS["purchases", line["network"]]
        rate = protocol.dp_learning_rate if shaping.defended else protocol.learning_rate
        if line["epochs"] == RETRAIN_EPOCHS and line["learning_rate"] == rate and place in known:
            line["published_successes"], line["published_median_poisons"] = known[place]
            compared.add(place)
    for place, (successes, median) in known.items():
        if place not in compared:
            line = dict(zip(SETTING, place), published_successes=successes, published_median_poisons=median, state="not run")
            table.append({**dict.fromkeys(HEADER, ""), **line})
    return sorted(table, key=in_order)


def setting_of(settings: dict) -> tuple:
    """What a setting is told from others by, as in SETTING."""
    clip_norm = settings["clip_norm"] or "undefended"
    rest = ("noise_multiplier", "learning_rate", "epochs", "budget", "dataset_name")
    return (settings["mode"], settings["network"], clip_norm, *(settings[name] for name in rest))


def measured(setting: tuple, targets: list[tuple[Path, dict, list[dict]]]) -> dict:
    """The line of one setting; a target counts once, whether it was stopped at its first success or not."""
    needed, epochs, without = [], [], 0
    for _, _, lines in targets:
        succeeded = {int(line["poison"]): int(line["epoch"]) for line in lines if line["success"] == "True"}
        without += succeeded.pop(0, None) is not None
        if succeeded:
            needed.append(min(succeeded))
            epochs.append(succeeded[needed[-1]])
    line = dict(
        zip(SETTING, setting), clean_acc=targets[0][1]["baseline_acc"], targets=len(targets), successes=len(needed), without_poison=without
    )
    line["median_poisons"], line["median_epoch"] = (statistics.median(values) if needed else "" for values in (needed, epochs))
    line["state"] = "finished" if len(targets) >= TARGETS else f"unfinished: {len(targets)} of {TARGETS} targets"
    line["source"] = str(targets[0][0].parent.relative_to(layout.RESULTS))
    return {**dict.fromkeys(HEADER, ""), **line}


def published_successes() -> dict[tuple, tuple]:
    """Published successes of 100 targets, and the median number of poisons where it is known, by mode, network, clip norm and noise multiplier."""
    needed = {}
    for line in published("tpoisoning_multipoison"):
        needed.setdefault(line["model"], []).append(int(line["n_poisons"]))
    found = {}
    for line in published("tpoisoning"):
        clip_norm = float(line["clip_norm"]) if line["clip_norm"] else "undefended"
        place = (line["mode"], line["network"], clip_norm, float(line["noise_multiplier"] or 0))
        counts = needed.get(line["model"]) if line["mode"] == "multipoison" else None
        found[place] = (int(line["successes"]), statistics.median(counts) if counts else "")
    return found


def in_order(line: dict) -> tuple:
    clip_norm = -1.0 if line["clip_norm"] == "undefended" else line["clip_norm"]
    mode = ("oneshot", "multipoison").index(line["mode"])
    return (
        line["network"],
        mode,
        -(line["epochs"] or math.inf),
        clip_norm,
        line["noise_multiplier"],
        -(line["learning_rate"] or math.inf),
        line["budget"],
    )


def print_targeted(table: list[dict]) -> None:
    done = [line for line in table if line["targets"]]
    if not done:
        return
    print(
        "\ntargeted clean-label poisons: targets hit, of those tried (published, of 100); medians of the poisons that it took (published)"
    )
    print("and of the epoch; targets that a re-training without poison loses\n")
    for line in done:
        shaping = (
            line["clip_norm"] if line["clip_norm"] == "undefended" else f"clip {line['clip_norm']:g}, noise {line['noise_multiplier']:g}"
        )
        print(
            f"{line['network']:<12}{line['mode']:<12}{shaping:<24}rate {line['learning_rate']:<6}{line['epochs']:>3} epochs:"
            f"{line['successes']:>4} of {line['targets']} ({line['published_successes']}), {line['median_poisons']} poisons"
            f" ({line['published_median_poisons']}), epoch {line['median_epoch']}, {line['without_poison']} without; {line['state']}"
        )
    print(f"{sum(line['state'] == 'not run' for line in table)} published settings not run")
