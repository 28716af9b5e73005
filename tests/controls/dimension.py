#!/usr/bin/env python3
"""Does robust aggregation break where "The poison of dimensionality" (Hoang, arXiv 2409.17328) says that it must?

    python3 tests/controls/dimension.py                        4 minutes on 2 cores; writes dimension.csv beside it
    python3 tests/controls/dimension.py pca_10 white_50        some feature maps; prints, and writes nothing

Its abstract says that with the geometric median or the clipped mean of gradients, and isotropic honest feature vectors,
a logistic regression of D >= 169 H^2 / P^2 parameters can be steered to any model: H honest rows, P poisons, which may
be any vectors, in no pixel box. On the binary subtask D varies by feature maps of the clean rows: principal components
(pca), the same with variance 1 (white, the only ones near isotropic), random ReLU features (relu). The plain mean is
left out, since one unbounded row does everything to it.

A row's gradient clipped to C reaches no further than C, so P poisons can hold a model only where |sum of the clipped
clean gradients| <= P C. The geometric median is smoothed with C: it is zero where that sum of all rows is, so the
condition is the same, but the suite stops it after three rounds that begin at the mean. A clipped logistic regression
follows the gradient of a convex loss, so a training ends where the sum is zero. How many poisons make it so is a linear
programme, since rows that the model fits well have small gradients. The others hold the model: wide rows, its labels.

The rule, set after a trial on one seed and before the five seeds ran. A victim agrees with its target on a share of the
test rows. A cell (feature map, share, shaping, target) is *broken* if the poisons close more than half of the gap that
as many random ones (vectors of the same norms, random labels) leave to full agreement, in the mean over the seeds. A
condition is *sufficient* if 90% of the cells where it holds are broken; the break *follows* it if, besides, 90% of
those where it does not hold are not broken. One that holds nowhere, or everywhere, cannot pass.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
from scipy import optimize, stats

import datasets
from analyze_gradients import cosine
from command_line import refuse, run
from files import writing
from models import device, minibatches
from models.kinds import robust
from models.protocols import protocol
from models.shaping import UNDEFENDED, shaping
from poisons import adversarial_flip, victims
from reports import matrix_verdicts
from results import layout

LONGEST_FIRST = "relu_2000 pca_784 white_400 pca_400 relu_170 white_170 pca_170 white_50 pca_50 white_10 pca_10"
MAPS = LONGEST_FIRST.split()
SHARES, SEEDS = (0.1, 0.4, 1.0), (1, 2, 3, 4, 5)
NORM = 0.1  # C, both the clip norm and the smoothing
PUSHES = {f"clip:{NORM}": (1.0,), f"geometric-median:{NORM}:0": (1.0, 1.25, 1.5, 2.0)}  # by how much to overdo it
SCALES = (1.0, 0.5, 0.25, 0.125)  # of a target: a smaller one decides alike, and may take fewer poisons
BOUND = 169
NEAR = 0.3  # the residual at which a larger scale is preferred to a smaller residual
WIDE, SLACK = 3.0, 0.5  # wide rows: their norm in mean norms of a clean row, and their gradient's in C
HALF = 0.5  # of the rule
PROTOCOL = protocol(layout.SUBTASK, victims.NETWORK)
CONDITIONS = {"bound_holds": f"D >= {BOUND} H^2 / P^2", "sum_holds": "|clean sum| <= P C"}
VERDICTS = {
    "followed": "follows it", "sufficient": "does not follow it, though it is sufficient",
    "not sufficient": "does not follow it", matrix_verdicts.UNTOLD: "cannot be told to follow it or not",
}  # fmt: skip


def main() -> None:
    unknown = set(sys.argv[1:]) - set(MAPS)
    if unknown:
        refuse(f"{sorted(unknown)[0]}: no feature map; choose of {', '.join(sorted(MAPS))}")
    chosen = [name for name in MAPS if name in sys.argv[1:] or len(sys.argv) == 1]
    workers = device.start(None, 2)
    data, found = datasets.load("subtask"), {}
    device.side_by_side(workers, lambda name: found.update({name: measure(name, data)}), [(name,) for name in chosen])
    table = pd.concat(found.values()).sort_values(["kind", "dimensions"], kind="stable")
    by = {"index": ["kind", "dimensions"], "columns": ["shaping", "poison_share"], "values": "broken"}
    print(f"broken, of {table.target.nunique()} targets\n", table.pivot_table(**by, aggfunc="sum").to_string(), sep="")
    for text, cells in table.groupby("shaping"):
        judge(text, cells)
        judge(f"{text}, white alone", cells[cells.kind == "white"])
    if len(sys.argv) == 1:
        with writing(Path(__file__).with_suffix(".csv")) as stream:
            table.to_csv(stream, index=False, float_format="%.4f", lineterminator="\n")


def features(name: str, data: datasets.Dataset) -> datasets.Dataset:
    """The rows in a feature map's coordinates, float32 [rows, dimensions], made from the clean training rows alone."""
    kind, size = name.split("_")[0], int(name.split("_")[1])
    x, x_test = (values.reshape(len(values), -1).astype(np.float64) for values in (data.x_train, data.x_test))
    x, x_test = x - x.mean(0), x_test - x.mean(0)
    if kind == "relu":
        matrix = np.random.default_rng(0).normal(size=(x.shape[1], size))
        matrix /= np.sqrt(np.mean((x @ matrix) ** 2))
        x, x_test = np.maximum(x @ matrix, 0), np.maximum(x_test @ matrix, 0)
    else:
        variances, vectors = (values[..., ::-1][..., :size] for values in np.linalg.eigh(x.T @ x / len(x)))
        matrix = vectors / np.sqrt(variances) if kind == "white" else vectors
        x, x_test = x @ matrix, x_test @ matrix
    x, x_test = x.astype(np.float32), x_test.astype(np.float32)
    return replace(data, shape=(size,), x_train=x, x_test=x_test, held_out=None)


def with_ones(x: np.ndarray) -> np.ndarray:
    return np.hstack([x, np.ones((len(x), 1), x.dtype)])


def trained(data: datasets.Dataset, engine, rows: minibatches.Rows, seed: int) -> np.ndarray:
    """The models after the paper's protocol, float64 [replicas, features + 1]: class 1 less class 0, the bias last."""
    from models import networks

    engine.reset(networks.build(victims.NETWORK, data.shape, data.classes, seed))
    cut = partial(minibatches.shuffled, batch_size=PROTOCOL.batch_size, seed=seed)
    for _ in minibatches.Run(engine, rows, cut).epochs(PROTOCOL.epochs):
        pass
    both = [engine.weights(replica) for replica in range(len(engine.shapings))]
    return np.array([np.append(np.diff(kernel), np.diff(bias)) for kernel, bias in both], np.float64)


def targets_of(data: datasets.Dataset) -> dict[str, np.ndarray]:
    """The models to aim at, of the norm of the clean one."""
    flipped, clean_count = adversarial_flip.craft(data, 0.3).rows, len(data.y_train)
    x = np.concatenate([data.x_train, data.x_train[flipped]])
    y = np.concatenate([data.y_train, 1 - data.y_train[flipped]])
    is_flip = np.arange(len(y)) >= clean_count
    rows = minibatches.Rows.of(x, y, is_flip, 2, np.stack([~is_flip, np.ones(len(y))], 1))
    clean, flips = trained(data, victims.stack_at(data, [UNDEFENDED] * 2, 0), rows, 0)
    random = np.append(np.random.default_rng(0).normal(size=len(clean) - 1), 0)
    targets = {"clean negated": -clean, "random": random, "flips": flips}
    return {name: model * np.linalg.norm(clean) / np.linalg.norm(model) for name, model in targets.items()}


def errors(x: np.ndarray, y: np.ndarray, model: np.ndarray) -> np.ndarray:
    """sqrt(2) (p - y) of each row of x, which ends in a 1: times x, it is as long as the row's gradient, which is
    (p - y) x for one class and minus that for the other, and stands for it from here on.
    """
    return np.sqrt(2) * (1 / (1 + np.exp(-np.clip(x @ model.astype(x.dtype), -80, 80))) - y.astype(x.dtype))


def clipped(x: np.ndarray, y: np.ndarray, model: np.ndarray) -> np.ndarray:
    """What each row times is its clipped gradient over C, float [rows]."""
    error = errors(x, y, model)
    return error / np.maximum(NORM, np.abs(error) * np.linalg.norm(x, axis=1))


def medianed(x: np.ndarray, y: np.ndarray, model: np.ndarray) -> np.ndarray:
    """As `clipped`, with the weights of the last round of the geometric median of these rows in place of the clip's."""
    error = errors(x, y, model)
    squared, share = error**2 * np.einsum("rf,rf->r", x, x), np.full(len(x), 1 / len(x), x.dtype)
    for _ in range(robust.ROUNDS):
        center = (share * error) @ x
        distance = np.sqrt(np.maximum(squared - 2 * error * (x @ center) + center @ center, NORM**2))
        share = 1 / distance / np.sum(1 / distance)
    return error / distance


@dataclass(frozen=True)
class Aim:
    """A model to hold, and candidates for poisons that push towards it, in the plane of it and of the clean sum.

    model: float [features + 1]; clean_sum: |sum of the clipped clean gradients| over C; axes: float [2, features];
    points: float [candidates, 2]; labels: int [candidates]; pushes: their clipped gradients over C along the axes and
    the bias, float [candidates, 3]; need: what these must sum up to, float [3]; found: how many of each make it up with
    fewest, float [candidates]; needed: of all; width: of wide rows.
    """

    model: np.ndarray
    clean_sum: float
    axes: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    pushes: np.ndarray
    need: np.ndarray
    found: np.ndarray
    needed: float
    width: float


def aim_at(x: np.ndarray, y: np.ndarray, model: np.ndarray) -> Aim:
    """x: the clean rows, with ones; y: their labels."""
    clean_sum = clipped(x, y, model) @ x
    along = model[:-1] / np.linalg.norm(model[:-1])
    across = clean_sum[:-1] - clean_sum[:-1] @ along * along
    axes, size = np.stack([along, across / np.linalg.norm(across)]), np.linalg.norm(x[:, :-1], axis=1).mean()
    angles, lengths = np.linspace(0, 2 * np.pi, 120, endpoint=False), size * np.append(0, np.geomspace(0.003, 10, 30))
    points = np.stack([np.outer(lengths, turn(angles)).reshape(-1) for turn in (np.cos, np.sin)], 1)
    points, labels = np.tile(points, (2, 1)), np.repeat([0, 1], len(points))
    pushes, need = pushes_of(points, labels, model), -np.append(axes @ clean_sum[:-1], clean_sum[-1])
    found = optimize.linprog(np.ones(len(points)), A_eq=pushes.T, b_eq=need, method="highs").x
    candidates = axes, points, labels, pushes, need, found
    return Aim(model, float(np.linalg.norm(clean_sum)), *candidates, found.sum(), WIDE * size)


def pushes_of(points: np.ndarray, labels: np.ndarray, model: np.ndarray) -> np.ndarray:
    """The clipped gradients over C of points of a plane that the model lies in along the first axis, [points, 3]."""
    points, flat = with_ones(points), np.array([np.linalg.norm(model[:-1]), 0.0, model[-1]])
    return clipped(points, labels, flat)[:, np.newaxis] * points


def placed(aim: Aim, count: int, more: float) -> tuple[np.ndarray, np.ndarray]:
    """`count` poisons, float32 [count, features], and their labels, int32 [count]: as few as push `more` times what is
    needed, all where it takes too many, and wide rows, which the model fits so well that their gradients are SLACK C.
    """
    margin = np.log(np.sqrt(2) * aim.width / (NORM * SLACK) - 1)
    depths = (np.array([-margin, margin]) - aim.model[-1]) / np.linalg.norm(aim.model[:-1])  # of labels 0 and 1
    copies = aim.found * count / aim.needed
    if aim.needed * more <= count:
        wide = pushes_of(np.stack([depths, [aim.width] * 2], 1), np.array([0, 1]), aim.model).mean(0)
        wide[1] = 0  # they come in opposite pairs
        columns = np.vstack([np.vstack([aim.pushes, wide]).T, np.ones(len(copies) + 1)])
        sums, costs = np.append(more * aim.need, count), np.append(np.ones(len(copies)), 0)
        held = optimize.linprog(costs, A_eq=columns, b_eq=sums, method="highs").x
        copies = copies if held is None else held[:-1]
    pushing, used = min(count, round(copies.sum())), np.flatnonzero(copies > 1e-9)
    chosen = np.repeat(used, victims.counts(copies[used] / copies[used].sum(), pushing))
    labels = np.arange(count - pushing) // 2 % 2
    sideways = np.random.default_rng(0).normal(size=((count - pushing + 1) // 2, aim.axes.shape[1]))
    sideways -= np.outer(sideways @ aim.axes[0], aim.axes[0])
    sideways *= aim.width / np.linalg.norm(sideways, axis=1, keepdims=True)
    sideways = np.stack([sideways, -sideways], 1).reshape(-1, aim.axes.shape[1])[: len(labels)]
    x = np.concatenate([aim.points[chosen] @ aim.axes, sideways + np.outer(depths[labels], aim.axes[0])])
    return x.astype(np.float32), np.concatenate([aim.labels[chosen], labels]).astype(np.int32)


def attack(clean: np.ndarray, y: np.ndarray, text: str, target: np.ndarray, count: int) -> tuple:
    """The aim, the poisons, their labels, and the residual: |sum of all shaped gradients| over that of the clean ones.

    Of the largest scale that they can hold with a residual of NEAR at most; else of the least residual; else, where
    they can hold none, of that which needs fewest. clean: float32 [rows, features + 1], with ones.
    """
    weigh, tried = clipped if text.startswith("clip") else medianed, []
    aims = [aim_at(clean, y, scale * target) for scale in SCALES]
    for aim in [aim for aim in aims if aim.needed <= count] or [min(aims, key=lambda aim: aim.needed)]:
        alone = np.linalg.norm(weigh(clean, y, aim.model) @ clean)
        for more in [more for more in PUSHES[text] if aim.needed * more <= count] or [1.0]:
            x, labels = placed(aim, count, more)
            everything = np.concatenate([clean, with_ones(x)])
            left = np.linalg.norm(weigh(everything, np.concatenate([y, labels]), aim.model) @ everything)
            tried.append((aim, x, labels, left / alone))
        if min(one[-1] for one in tried) <= NEAR:
            break
    return min(tried, key=lambda one: one[-1])


def measure(name: str, raw: datasets.Dataset) -> pd.DataFrame:
    """A line for each cell of a feature map."""
    data, lines = features(name, raw), []
    targets, clean, count = targets_of(data), with_ones(data.x_train), len(data.y_train)
    for text in PUSHES:
        engine = victims.stack_at(data, [shaping(text)] * (len(targets) + 1), 0)
        for share in SHARES:
            attacks = [attack(clean, data.y_train, text, target, round(share * count)) for target in targets.values()]
            rows = rows_of(data, [(x, y) for _, x, y, _ in attacks])
            models = np.array([trained(data, engine, rows, seed) for seed in SEEDS])
            for place, (target, (aim, x, _, residual)) in enumerate(zip(targets, attacks)):
                size, bound = len(aim.model), BOUND / share**2
                lines.append({
                    "kind": name.split("_")[0], "dimensions": size, "poison_share": share, "shaping": text,
                    "target": target, "scale": np.linalg.norm(aim.model) / np.linalg.norm(targets[target]),
                    "bound_dimensions": bound, "bound_holds": size >= bound,
                    "clean_sum": aim.clean_sum / len(x), "sum_holds": aim.clean_sum <= len(x),
                    "needed_share": aim.needed / count, "residual": residual,
                    **judged(data, aim.model, models[:, place], models[:, -1]),
                })  # fmt: skip
    print(f"{name} is done", file=sys.stderr, flush=True)
    return pd.DataFrame(lines)


def rows_of(data: datasets.Dataset, sets: list[tuple[np.ndarray, np.ndarray]]) -> minibatches.Rows:
    """The clean rows, and in the same slots each replica's own poisons; the last replica's are vectors of the norms of
    the first one's in random directions, under random labels.
    """
    count, size, random, replicas = len(data.y_train), len(sets[0][1]), np.random.default_rng(0), len(sets) + 1
    x = random.normal(size=sets[0][0].shape)
    x *= np.linalg.norm(sets[0][0], axis=1, keepdims=True) / np.linalg.norm(x, axis=1, keepdims=True)
    sets = [(data.x_train, data.y_train), *sets, (x.astype(np.float32), random.integers(2, size=size, dtype=np.int32))]
    x, y = (np.concatenate(values) for values in zip(*sets))
    weight = np.concatenate([np.ones((count, replicas)), np.kron(np.eye(replicas), np.ones((size, 1)))])
    slots = np.concatenate([np.arange(count), np.tile(count + np.arange(size), replicas)])
    return minibatches.Rows.of(x, y, np.arange(len(y)) >= count, replicas, weight, slots)


def judged(data: datasets.Dataset, target: np.ndarray, steered: np.ndarray, random: np.ndarray) -> dict:
    """What became of the victims, models [seeds, features + 1], of the poisons for a target and of random ones."""
    x, y = with_ones(data.x_test), data.y_test
    wanted, of_steered, of_random = (models @ x.T > 0 for models in (target, steered, random))
    agreement, by_chance = np.mean(of_steered == wanted), np.mean(of_random == wanted)
    closed, accuracies = (agreement - by_chance) / (1 - by_chance), np.mean(of_steered == y, axis=1)
    return {
        "cosine": np.mean([cosine(model, target) for model in steered]),
        "random_cosine": np.mean([cosine(model, target) for model in random]),
        "agreement": agreement, "random_agreement": by_chance, "gap_closed": closed, "broken": closed > HALF,
        "target_acc": np.mean(wanted == y), "test_acc": accuracies.mean(),
        "test_acc_margin": stats.t.ppf(0.975, len(SEEDS) - 1) * stats.sem(accuracies),
        "random_acc": np.mean(of_random == y),
    }  # fmt: skip


def judge(text: str, cells: pd.DataFrame) -> None:
    """Print in how many cells each condition holds, how many of these and of the others are broken, and the verdict."""
    for column, condition in CONDITIONS.items():
        among, others = cells.broken[cells[column]], cells.broken[~cells[column]]
        verdict = VERDICTS[matrix_verdicts.followed(among, others)]
        print(f"{text}: {condition} holds in {len(among)} cells, of which {among.sum()} are broken, as are", end=" ")
        print(f"{others.sum()} of the {len(others)} others: the break {verdict}")


if __name__ == "__main__":
    run(main)
