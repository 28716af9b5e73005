"""The claims of the paper's abstract, (a) to (f), each with its checks: those on gradients are in `reports/gradient_claims.py`."""

from __future__ import annotations

from collections.abc import Callable

from reports import Table
from reports.gradient_claims import larger_gradients, other_orientation
from reports.indiscriminate import CLIP_NORMS
from reports.verdicts import CONTROL, PROTOCOL, Check, Claim, find, sources, span

HALF, DEFEATED = 0.5, 0.1  # of the targets hit undefended; of accuracy
WITH_MOST = "with most of the five clip norms, no noise"


def judge(tables: dict[str, Table]) -> list[Claim]:
    """The claims, judged by the tables; tables: by name."""
    return [
        larger_gradients(tables["gradients"]),
        other_orientation(tables["gradients"]),
        helps_against_indiscriminate(tables["indiscriminate"], tables["seeds"]),
        mitigates_one_shot(tables["tpoisoning"]),
        raises_the_price(tables["tpoisoning"]),
        strong_attack_defeats(tables["indiscriminate"], tables["seeds"]),
    ]


# --- (c) and (f): indiscriminate attacks ---


def of_clip_norms(table: Table, attack: str, ratio: float) -> list[dict]:
    """The rows of an attack with each of the paper's clip norms, without noise."""
    return [line for line in find(table.lines, attack=attack, ratio=ratio, noise_multiplier=0.0) if line["clip_norm"] in CLIP_NORMS]


def over_clip_norms(check: Check, table: Table, column: str, attack: str, ratio: float, passes: Callable[[dict], bool]) -> Check:
    """Complete a check on those rows that have the column: that most of them pass."""
    lines = [line for line in of_clip_norms(table, attack, ratio) if line.get(column, "") != ""]
    if lines:
        count = sum(passes(line) for line in lines)
        check.measured = f"{count} of {len(lines)} clip norms; {span([line[column] for line in lines])}"
        if "seeds" in lines[0]:
            check.measured += f"; {min(line['seeds'] for line in lines)} seeds"
        check.passed, check.source = count > len(lines) / 2, sources(lines)
    return check


def helps_against_indiscriminate(indiscriminate: Table, seeds: Table) -> Claim:
    claim = Claim(
        "c", "DP-SGD helps against indiscriminate attacks",
        "Trained with DP-SGD, even with next to no privacy, the model keeps more of its accuracy under random label flips than without.",
    )  # fmt: skip
    for ratio in (0.1, 0.2, 0.3, 0.4):
        undefended = find(indiscriminate.lines, attack="label-flips", ratio=ratio, clip_norm="undefended")
        best = undefended[0]["best_acc"] if undefended else None
        alone = "" if best is None else f" ({best:.4f})"
        check = Check(PROTOCOL, f"label flips, ratio {ratio}: best accuracy above that of undefended training{alone} {WITH_MOST}")
        if best is not None:
            over_clip_norms(check, indiscriminate, "best_acc", "label-flips", ratio, lambda line, best=best: line["best_acc"] > best)
        claim.checks.append(check)

    def gained(attack: str, ratio: float, epoch: str) -> None:
        text = f"{attack}, ratio {ratio}, over seeds: gain in {epoch} accuracy above 0 (95% interval) {WITH_MOST}"
        gain, interval = f"{epoch}_gain_mean", f"{epoch}_gain_ci95"
        claim.checks.append(over_clip_norms(Check(CONTROL, text), seeds, gain, attack, ratio, lambda line: line[gain] > line[interval]))

    for ratio in (0.1, 0.2, 0.3, 0.4):
        gained("label-flips", ratio, "final")
    gained("label-flips", 0.4, "best")
    gained("minmax", 0.4, "final")  # the realistic attack that the paper does not run
    return claim


def strong_attack_defeats(indiscriminate: Table, seeds: Table) -> Claim:
    claim = Claim(
        "f", "The strong, unrealistic attack defeats DP-SGD",
        "Against the data-dependent attack of Steinhardt et al. (slabs: few distinct, impossible images, repeated) DP-SGD does not help.",
    )  # fmt: skip

    def defeated(line: dict, column: str) -> bool:
        return line[column] <= line["baseline_acc"] - DEFEATED

    def not_gained(line: dict) -> bool:
        return line["final_gain_mean"] <= line["final_gain_ci95"]

    for attack, kind in (("slabs", PROTOCOL), ("slabs-release", CONTROL)):
        check = Check(kind, f"{attack}, ratio 0.4: best accuracy at least {DEFEATED} below the clean baseline {WITH_MOST}")
        over_clip_norms(check, indiscriminate, "best_acc", attack, 0.4, lambda line: defeated(line, "best_acc"))
        known = [line["published_best_acc"] for line in of_clip_norms(indiscriminate, attack, 0.4) if line["published_best_acc"] != ""]
        check.published = span(known) if known else ""
        over_seeds = Check(
            CONTROL, f"{attack}, ratio 0.4, over seeds: mean final accuracy at least {DEFEATED} below the clean baseline {WITH_MOST}"
        )
        over_clip_norms(over_seeds, seeds, "final_acc_mean", attack, 0.4, lambda line: defeated(line, "final_acc_mean"))
        no_gain = Check(CONTROL, f"{attack}, ratio 0.4, over seeds: gain in final accuracy not above 0 (95% interval) {WITH_MOST}")
        over_clip_norms(no_gain, seeds, "final_gain_mean", attack, 0.4, not_gained)
        claim.checks += [check, over_seeds, no_gain]
    return claim


# --- (d) and (e): targeted attacks ---


def compare(targeted: Table, check: Check, passes: Callable[[dict, dict], bool], column: str, defended: dict, undefended: dict) -> Check:
    """Complete a check on two rows of the table, the one under DP-SGD and the undefended one."""
    found = [[line for line in find(targeted.lines, **setting) if line.get(column, "") != ""] for setting in (defended, undefended)]
    pairs = [(one, other) for one in found[0] for other in found[1] if one["dataset"] == other["dataset"]]
    if pairs:
        one, other = max(pairs, key=lambda pair: (pair[0]["targets"], pair[1]["targets"]))
        check.measured, check.source = " against ".join(shown(line, column) for line in (one, other)), sources([one, other])
        check.passed = passes(one, other)
        known = [line.get(f"published_{column}", "") for line in (one, other)]
        check.published = " against ".join(f"{value:g}" for value in known) if all(value != "" for value in known) else ""
    return check


def shown(line: dict, column: str) -> str:
    return f"{line[column]} of {line['targets']}" if column == "successes" else f"{line[column]:g}"


def setting(mode: str, network: str, clip_norm: float | str, rate: float, epochs: int = 50, noise_multiplier: float = 0.0) -> dict:
    names = ("mode", "network", "clip_norm", "learning_rate", "epochs", "noise_multiplier")
    return dict(zip(names, (mode, network, clip_norm, rate, epochs, noise_multiplier)))


def mitigates_one_shot(targeted: Table) -> Claim:
    claim = Claim(
        "d", "DP-SGD mitigates one-shot targeted attacks",
        "One clean-label poison at a time succeeds on far fewer targets when the victim is trained with DP-SGD.",
    )  # fmt: skip
    alone = {"lr": ("undefended", 0.04), "shallow-mlp": ("undefended", 0.001)}

    def fewer(kind: str, what: str, network: str, clip_norm: float, rate: float, epochs: int = 50, noise: float = 0.0) -> None:
        text = f"{what}: targets hit at most {HALF:.0%} of those hit undefended"
        settings = (setting("oneshot", network, clip_norm, rate, epochs, noise), setting("oneshot", network, *alone[network], epochs))
        claim.checks.append(compare(targeted, Check(kind, text), halved, "successes", *settings))

    def halved(one: dict, other: dict) -> bool:
        return one["successes"] / one["targets"] <= HALF * other["successes"] / other["targets"]

    fewer(PROTOCOL, "logistic regression, clip norm 0.1", "lr", 0.1, 0.08)
    fewer(PROTOCOL, "logistic regression, clip norm 4, noise multiplier 0.0025", "lr", 4.0, 0.08, noise=0.0025)
    fewer(PROTOCOL, "shallow MLP, clip norm 0.1", "shallow-mlp", 0.1, 0.002)
    fewer(CONTROL, "clip norm 0.1, the same learning rate", "lr", 0.1, 0.04)
    fewer(CONTROL, "clip norm 0.1, 25 epochs instead of 50", "lr", 0.1, 0.08, 25)
    fewer(CONTROL, "clip norm 0.1, 25 epochs, the same learning rate", "lr", 0.1, 0.04, 25)
    return claim


def raises_the_price(targeted: Table) -> Claim:
    claim = Claim(
        "e", "DP-SGD raises the attacker's price",
        "Several poisons together win the targets back, but it takes more of them than without DP-SGD.",
    )  # fmt: skip

    def both(kind: str, what: str, rate: float, epochs: int) -> None:
        settings = (setting("multipoison", "lr", 0.1, rate, epochs), setting("multipoison", "lr", "undefended", 0.04, epochs))
        check = Check(kind, f"clip norm 0.1{what}: at least 90% as many targets hit as undefended")
        claim.checks.append(compare(targeted, check, won_back, "successes", *settings))
        check = Check(kind, f"clip norm 0.1{what}: more poisons needed in the median")
        claim.checks.append(compare(targeted, check, dearer, "median_poisons", *settings))

    def won_back(one: dict, other: dict) -> bool:
        return one["successes"] / one["targets"] >= 0.9 * other["successes"] / other["targets"]

    def dearer(one: dict, other: dict) -> bool:
        return one["median_poisons"] > other["median_poisons"]

    both(PROTOCOL, "", 0.08, 50)
    both(CONTROL, ", the same learning rate", 0.04, 50)
    both(CONTROL, ", 25 epochs instead of 50", 0.08, 25)
    both(CONTROL, ", 25 epochs, the same learning rate", 0.04, 25)
    return claim
