"""The gradient shapings as their papers write them, in NumPy and float64, on gradients that are formed row by row.

What the tests hold a stack against, so it shares no code with the package. m_i is how often a replica sees row i (0:
not at all, 3: three copies), g_i the gradient of its cross-entropy over all parameters, and M the sum of the m_i. A
kind gives each row a weight w_i, and the direction of the step is sum_i m_i w_i g_i / max(M, 1). The kinds in
`AGGREGATES` give the direction itself. The kinds in `STATES` take what they remember and return it behind their result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Gradients:
    """The rows of a batch.

    matrix: float64 [rows, parameters], g_i. layers: of each layer the columns of its kernel and bias. losses: float64
    [rows], cross-entropy. copies: int [rows], m_i. places: int [rows], each row's place in the batch. trusted: float64
    [trusted rows, parameters], the gradients of held-out rows at the same parameters. epoch: from 1, of the phase;
    row_weights: float64 [rows], what a kind of `EPOCHS` gave the rows when the epoch began.
    """

    matrix: np.ndarray
    layers: list[np.ndarray]
    losses: np.ndarray
    copies: np.ndarray
    places: np.ndarray
    trusted: np.ndarray | None = None
    epoch: int = 1
    row_weights: np.ndarray | None = None

    @staticmethod
    def of(arrays: list[np.ndarray], losses, copies, places, trusted: list[np.ndarray] | None = None) -> Gradients:
        """From arrays [rows, *parameter], kernel and bias of one layer after the other."""
        ends = np.cumsum([values[0].size for values in arrays])
        layers = [np.arange(start, end) for start, end in zip([0, *ends[1::2]], ends[1::2])]
        matrix, held_out = (
            None if given is None else np.concatenate([values.reshape(len(values), -1) for values in given], 1)
            for given in (arrays, trusted)
        )
        return Gradients(matrix.astype(float), layers, losses, np.asarray(copies, int), places, held_out)

    @property
    def seen(self) -> int:
        """M."""
        return int(self.copies.sum())

    @property
    def norms(self) -> np.ndarray:
        return lengths(self.matrix)

    @property
    def probabilities(self) -> np.ndarray:
        """Of the rows' own labels."""
        return np.exp(-self.losses)

    @property
    def mean(self) -> np.ndarray:
        """sum m_i g_i / M, zero where nothing is seen."""
        return self.copies @ self.matrix / max(self.seen, 1)


def lengths(vectors):
    return np.sqrt((vectors**2).sum(-1))


def ratio(numerator, denominator):
    """numerator / denominator, 0 where the denominator is."""
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, 0.0, numerator / safe)


def scaled_to(norms, bound):
    """min(1, bound / norm); 1 where the norm is zero."""
    return np.where(norms > bound, ratio(bound, norms), 1.0)


def floor(share, count) -> int:
    """A share of a count, rounded down, where 0.3 of 10 is 3."""
    return math.floor(share * count + 1e-4)


def smallest(values, copies, count):
    """1 for the rows whose value is at most the `count`-th smallest, copies counted; all of equal values."""
    ordered = np.sort(np.repeat(values, copies))
    return np.zeros(len(values)) if count == 0 else (values <= ordered[count - 1]).astype(float)


# Norms


def clip(gradients, clip_norm):
    """Abadi et al., Deep learning with differential privacy, CCS 2016."""
    return scaled_to(gradients.norms, clip_norm)


def clip_layers(gradients, clip_norm):
    """Each layer to C / sqrt(L), so that the whole stays within C (McMahan et al., Learning differentially private
    recurrent language models, ICLR 2018). Returns [rows, L].
    """
    bound = clip_norm / math.sqrt(len(gradients.layers))
    return np.stack([scaled_to(lengths(gradients.matrix[:, columns]), bound) for columns in gradients.layers], 1)


def auto_s(gradients, gamma):
    """Bu et al., Automatic clipping, NeurIPS 2023."""
    return 1 / (gradients.norms + gamma)


def auto_v(gradients):
    """Bu et al., Automatic clipping, NeurIPS 2023."""
    return ratio(1.0, gradients.norms)


def psac(gradients, clip_norm, r):
    """Xia et al., Differentially private learning with per-sample adaptive clipping, AAAI 2023."""
    return clip_norm / (gradients.norms + r / (gradients.norms + r))


def quantile_clip(gradients, state, q, rate, initial_clip_norm):
    """Andrew et al., Differentially private learning with adaptive clipping, NeurIPS 2021, without noise on b.

    state: C_t.
    """
    below = gradients.copies @ (gradients.norms <= state) / max(gradients.seen, 1)
    return clip(gradients, state), state * math.exp(-rate * (below - q)) if gradients.seen else state


def drop_norm(gradients, f):
    """Without the rows of largest norm (norm_clipping.py of BGMD, Acharya et al., AISTATS 2022)."""
    return smallest(gradients.norms, gradients.copies, gradients.seen - floor(f, gradients.seen))


# Losses


def trim_loss(gradients, f):
    """TRIM (Jagielski et al., S&P 2018) and ITLM (Shen and Sanghavi, ICML 2019), within a batch."""
    return smallest(gradients.losses, gradients.copies, gradients.seen - floor(f, gradients.seen))


def phuber(gradients, tau):
    """The gradient of the partially Huberised cross-entropy (Menon et al., ICLR 2020)."""
    return np.minimum(1.0, tau * gradients.probabilities)


def gce(gradients, q):
    """The gradient of the generalised cross-entropy (1 - p^q) / q (Zhang and Sabuncu, NeurIPS 2018)."""
    return gradients.probabilities**q


def linear(gradients):
    """The gradient of the linear loss 1 - p (Ghosh et al., Robust loss functions under label noise, AAAI 2017)."""
    return gradients.probabilities


# Robust means


def micro_batches(gradients, m):
    """Row i lies in micro-batch (its place mod m); m = 0: every copy of a row by itself.

    Returns the means x_u [N, parameters] of the micro-batches that hold anything, and the shares A [N, rows] of the
    rows in them: x = A g.
    """
    if m == 0:
        order = np.argsort(gradients.places, kind="stable")  # the first of equals is the first in the shuffled batch
        shares = np.eye(len(gradients.copies))[np.repeat(order, gradients.copies[order])]
    else:
        counts = [gradients.copies * (gradients.places % int(m) == u) for u in range(int(m))]
        shares = np.array([count / count.sum() for count in counts if count.any()])
        shares = shares.reshape(-1, len(gradients.copies))
    return shares @ gradients.matrix, shares


def weights_of(coefficients, shares, gradients):
    """The row weights with which the step is sum_u coefficient_u x_u."""
    return ratio(gradients.seen * (coefficients @ shares), gradients.copies)


def geometric_median(gradients, nu, m):
    """Three rounds of the smoothed Weiszfeld iteration from the mean (Pillutla et al., Robust aggregation for federated
    learning, IEEE TSP 2022).
    """
    points, shares = micro_batches(gradients, m)
    coefficients = np.full(len(points), 1 / max(len(points), 1))
    for _ in range(3):
        away = lengths(points - coefficients @ points)
        coefficients = 1 / np.maximum(nu, away)
        coefficients = ratio(coefficients, coefficients.sum())
    return weights_of(coefficients, shares, gradients)


def multi_krum(gradients, f, m):
    """The mean of the N - F vectors that lie nearest to N - F vectors, themselves among them (Blanchard et al., NeurIPS
    2017, indexed as ByzFL's MultiKrum, which leaves the zero out and so takes N - F - 1; the paper takes N - F - 2).
    """
    points, shares = micro_batches(gradients, m)
    keep = len(points) - floor(f, len(points))
    squared = np.array([((points - point) ** 2).sum(1) for point in points]).reshape(len(points), len(points))
    scores = np.sort(squared, 1)[:, :keep].sum(1)
    chosen = np.zeros(len(points))
    chosen[np.argsort(scores, kind="stable")[:keep]] = 1 / max(keep, 1)
    return weights_of(chosen, shares, gradients)


def sever(gradients, state, f):
    """Without the rows of largest projection on the top singular direction of the centred gradients (Diakonikolas et
    al., Sever, ICML 2019), which three rounds of power iteration follow from batch to batch.

    state: V [parameters], zero at first.
    """
    centred, direction = gradients.matrix - gradients.mean, state
    projections = (centred * direction).sum(1) if direction.any() else gradients.norms
    for _ in range(3):
        direction = (gradients.copies * projections) @ centred
        direction = ratio(direction, lengths(direction))
        projections = (centred * direction).sum(1)
    keep = gradients.seen - floor(f, gradients.seen)
    scale = gradients.norms + lengths(gradients.mean)  # of what is subtracted: all below is rounding, here and there
    projections = np.where(np.abs(projections) > 1e-4 * scale, projections, 0.0)
    return smallest(projections**2, gradients.copies, keep), direction if gradients.seen else state


def median_of_means(gradients, m):
    """Minsker, Geometric median and robust estimation in Banach spaces, 2015, by coordinate. Returns the direction."""
    points, _ = micro_batches(gradients, m)
    return np.median(points, 0) if len(points) else gradients.mean


def trimmed_mean(gradients, f, m):
    """Yin et al., Byzantine-robust distributed learning, ICML 2018. Returns the direction."""
    points, _ = micro_batches(gradients, m)
    cut = floor(f, len(points))
    return np.sort(points, 0)[cut : len(points) - cut].mean(0) if len(points) else gradients.mean


def centered_clip(gradients, state, radius):
    """One round around the last result (Karimireddy et al., Learning from history, ICML 2021).

    state: v [parameters], zero at first. Returns the direction, the new v; zero where nothing is seen.
    """
    if not gradients.seen:
        return np.zeros_like(state), state
    away = gradients.matrix - state
    clipped = away * scaled_to(lengths(away), radius)[:, np.newaxis]
    result = state + gradients.copies @ clipped / gradients.seen
    return result, result


# Direction


def cosines(gradients, direction):
    """Of every gradient to a direction; 0 where one of both is zero."""
    return ratio(gradients.matrix @ direction, gradients.norms * lengths(direction))


def cosine(gradients, t):
    """The rows whose gradients point along the batch's mean."""
    return (cosines(gradients, gradients.mean) >= t).astype(float)


def running_cosine(gradients, state, t, beta):
    """The same against a running mean; state: v [parameters], zero at first."""
    mean = beta * state + (1 - beta) * gradients.mean if gradients.seen else state
    return (cosines(gradients, mean) >= t).astype(float), mean


def trusted(gradients, r):
    """Trust scores relu(cos) to the gradient of trusted rows, each gradient scaled to the norm of that one (Cao et al.,
    FLTrust, NDSS 2021).
    """
    root = gradients.trusted[: int(r)].mean(0)
    scores = np.maximum(0.0, cosines(gradients, root))
    total = gradients.copies @ scores
    return ratio(gradients.seen * scores * lengths(root), gradients.norms * total)


# Over epochs


def abl(gradients, gamma, isolation_epochs, f):
    """Anti-backdoor learning: losses are kept up to gamma for some epochs, after which the share f of lowest losses is
    climbed (Li et al., NeurIPS 2021).
    """
    return np.sign(gradients.losses - gamma) if gradients.epoch <= isolation_epochs else gradients.row_weights


def abl_begins(epoch, losses, outputs, labels, copies, weights, gamma, isolation_epochs, f):
    """The row weights from an epoch's begin on: -1 for the isolated rows, 1 for the others."""
    if epoch != isolation_epochs + 1:
        return weights
    return 1 - 2 * smallest(losses, copies, floor(f, copies.sum()))


def epic(gradients, f, every, last_epoch):
    """Effective poison identification drops rows that are like no other (Yang et al., Not all poisons are created
    equal, ICML 2022).
    """
    return gradients.row_weights


def epic_begins(epoch, losses, outputs, labels, copies, weights, f, every, last_epoch):
    """The row weights from an epoch's begin on: 0 for the rows that were dropped now or before, 1 for the others.

    outputs: float64 [rows, classes], softmax.
    """
    if epoch == 1 or (epoch - 1) % every or epoch > last_epoch + 1:
        return weights
    return np.where(epic_dropped(outputs, labels, (copies > 0) & (weights > 0), f), 0.0, weights)


def epic_dropped(outputs, labels, kept, f):
    """The medoids that are alone in their cluster, bool [rows]; kept: bool [rows], seen and not dropped before."""
    dropped = np.zeros(len(labels), bool)
    deltas = outputs - np.eye(outputs.shape[1])[labels]
    for label in range(outputs.shape[1]):
        rows = np.flatnonzero(kept & (labels == label))
        if not len(rows):
            continue
        distances = lengths(deltas[rows][:, np.newaxis] - deltas[rows])
        similarities, medoids = distances.max() - distances, []
        for _ in range(math.ceil(f * len(rows) - 1e-4)):
            best = similarities[:, medoids].max(1) if medoids else np.zeros(len(rows))
            gains = np.maximum(similarities, best[:, np.newaxis]).sum(0) - best.sum()
            gains[medoids] = -1
            medoids.append(int(gains.argmax()))
        clusters = np.bincount(distances[:, medoids].argmin(1), minlength=len(medoids))
        dropped[rows[np.array(medoids)[clusters == 1]]] = True
    return dropped


# Chains

AGGREGATES = {"median-of-means", "trimmed-mean", "centered-clip"}
# What a kind that remembers something remembers at first, of the number of parameters and the kind's own
STATES = {
    "quantile-clip": lambda parameters, q, rate, initial_clip_norm: initial_clip_norm,
    **{name: lambda parameters, *_: np.zeros(parameters) for name in ("sever", "centered-clip", "running-cosine")},
}
# What gives the rows their weights for an epoch when it begins
EPOCHS = {"abl": abl_begins, "epic": epic_begins}


def phase(text: str, epoch: int) -> tuple[str, int]:
    """The chain of a schedule (clip:1@5,phuber:2) that an epoch lies in, and the epoch's number in that phase."""
    *before, last = text.split(",")
    for chain_text, epochs in (words.split("@") for words in before):
        if epoch <= int(epochs):
            return chain_text, epoch
        epoch -= int(epochs)
    return last, epoch


def links(text: str) -> list[tuple]:
    """The kinds of a chain and their parameters, from its text without noise: phuber:2+clip:1."""
    words = [link.split(":") for link in text.split("+")]
    return [(name, *map(float, parameters)) for name, *parameters in words if name != "undefended"]


def first_states(text: str, parameters: int) -> list:
    """What the links of a chain remember before the first step."""
    return [STATES[name](parameters, *values) if name in STATES else None for name, *values in links(text)]


def begin(text: str, epoch: int, losses, outputs, labels, copies, weights) -> np.ndarray:
    """The weights of all rows from the begin of a chain's epoch on, at the parameters then."""
    for name, *values in links(text):
        if name in EPOCHS:
            weights = EPOCHS[name](epoch, losses, outputs, labels, copies, weights, *values)
    return weights


def chain(text: str, gradients: Gradients, states: list) -> tuple:
    """One step: each link sees the gradients as those before it left them, but the model's own losses.

    Returns the weights [rows, layers], None behind an aggregate; the direction [parameters]; the states.
    """
    weights, after = np.ones((len(gradients.copies), len(gradients.layers))), []
    for (name, *values), state in zip(links(text), states):
        function = globals()[name.replace("-", "_")]
        found, new = function(gradients, state, *values) if name in STATES else (function(gradients, *values), None)
        after.append(new)
        if name in AGGREGATES:
            return None, found, after
        found = np.broadcast_to(found.reshape(len(found), -1), weights.shape)
        weights, matrix = weights * found, gradients.matrix.copy()
        for layer, columns in enumerate(gradients.layers):
            matrix[:, columns] *= found[:, [layer]]
        gradients = replace(gradients, matrix=matrix)
    return weights, gradients.mean, after
