"""Votes of models that were trained on rows of their own: deep partition aggregation (Levine and Feizi 2021, arXiv
2006.14768) and finite aggregation (Wang, Levine and Feizi 2022, arXiv 2202.02628).

Training rows are dealt out to k d buckets by their numbers, and k d models are trained, each on d buckets and so on one
row in k. With d = 1 these are k parts and a model each. A substituted row stays in its bucket, so it changes d models
at most, and a prediction is certain until enough votes can have changed. An attacker who inserts or deletes rows where
rows are dealt out by a hash of what they hold has the same radius; a substitution is then two of them.

The models train as replicas of stacks, a group at a time, each by full steps on its own rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from command_line import Progress, refuse
from datasets import Dataset
from models import minibatches
from models.certificates import tested
from models.certificates.stability import check_range
from models.minibatches import Rows
from models.shaping import Shaping

GROUP = 40  # models that train as one stack: as many as a core's cache holds


def buckets(rows: int, parts: int, spread: int, seed: int) -> np.ndarray:
    """The bucket of each training row, int [rows]: parts * spread buckets, whose sizes differ by one row at most.

    Refuses more buckets than rows.
    """
    count = parts * spread
    if count > rows:
        refuse(f"--parts {parts}: {count} buckets for {rows} rows; ask for {rows // spread} parts at most")
    return np.random.default_rng([seed, count]).permutation(rows) % count


def assignment(parts: int, spread: int, seed: int) -> np.ndarray:
    """The buckets of each model, int [parts * spread, spread]: model m has those of m + o_1, ..., m + o_spread."""
    count = parts * spread
    offsets = np.random.default_rng([seed, count, spread]).permutation(count)[:spread]
    return (np.arange(count)[:, np.newaxis] + offsets) % count


def votes(
    dataset: Dataset, network: str, optimizer: str, shaping: Shaping, learning_rate: float, steps: int, parts: int,
    spread: int, seed: int, label: str,
) -> np.ndarray:  # fmt: skip
    """Train the models and return the class that each gives the rows of `tested`, int8 [parts * spread, rows].

    shaping: what each model does to its gradients; steps: each of all rows of a model.
    """
    from models import networks, stack

    check_range(dataset.x_train)
    bucket, members = buckets(len(dataset.y_train), parts, spread, seed), assignment(parts, spread, seed)
    model = networks.build(network, dataset.shape, dataset.classes, seed)
    engine = stack.Stack(model, [shaping] * GROUP, optimizer, learning_rate, seed, dataset.held_out)
    batches = partial(minibatches.shuffled, batch_size=len(dataset.y_train), seed=seed)
    x, _ = tested(dataset)
    x = x.reshape(len(x), -1)
    found, groups = [], range(0, len(members), GROUP)
    progress = Progress(label, len(groups), unit="group")
    for number, first in enumerate(groups, 1):
        group = members[first : first + GROUP]
        engine.reset()
        engine.keep(range(len(group)))
        for _ in minibatches.Run(engine, rows_of(dataset, bucket, group), batches).epochs(steps):
            pass
        found.append(engine.probabilities(x).argmax(2).astype(np.int8))
        progress.show(number, (found[-1][:, : len(dataset.y_test)] == dataset.y_test).mean(1))
    return np.concatenate(found)


def rows_of(dataset: Dataset, bucket: np.ndarray, group: np.ndarray) -> Rows:
    """The rows that a group of models sees, each its own; bucket: of each row; group: buckets, int [models, spread]."""
    seen = np.zeros((len(group), bucket.max() + 1), bool)
    np.put_along_axis(seen, group, True, 1)
    weight = seen[:, bucket].T
    rows = np.flatnonzero(weight.any(1))
    x, y, weight = dataset.x_train[rows], dataset.y_train[rows], weight[rows].astype(np.float32)
    return Rows.of(x, y, np.zeros(len(rows), bool), len(group), weight)


def radii(votes: np.ndarray, classes: int, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The winner of the vote on every row, the smallest class of equals, int [rows], and its radius, int [rows].

    votes: int [models, rows]; members: as `assignment` gives them. A bucket that is altered turns the votes of its
    models for the winner c into votes for c': by that it takes at most the sum over them of 1 + [vote = c] - [vote =
    c'] from the lead of c over c'. Certain are r substitutions when the r buckets that take most leave a lead.
    """
    models, rows = votes.shape
    counts = np.stack([(votes == label).sum(0) for label in range(classes)])
    winner, columns = counts.argmax(0), np.arange(rows)
    owners = np.argsort(members, axis=None, kind="stable").reshape(models, -1) // members.shape[1]
    found = np.full(rows, models)
    for other in range(classes):
        lead = counts[winner, columns] - counts[other] - (other < winner)
        taken = 1 + (votes == winner).astype(np.int32) - (votes == other)
        by_bucket = -np.sort(-sum(taken[owner] for owner in owners.T), axis=0)
        certain = (np.cumsum(by_bucket, 0) <= lead).sum(0)
        found = np.where(other == winner, found, np.minimum(found, certain))
    return winner, found
