"""The semidefinite program inside the data-dependent slab attack (Steinhardt et al. 2017, section 4.2), for Clarabel.

Four poisons are sought for a given model (theta, b): for each class a support point a_y that the model gets wrong by as
much as can be, and a balancing point b_y that only moves the class's mean. The sphere and the slab are those of the
POISONED means,
    m_y = (p_y mu_y + w(a_y) a_y + w(b_y) b_y) / (p_y + w(a_y) + w(b_y)),
and depend on inner products alone, so the program is over the Gram matrix M of (a_+, b_+, a_-, b_-, q_1, q_2, q_3), the
q an orthonormal basis of the span of mu_+, mu_- and theta. It is exact because the points have more than 7 dimensions
to lie in. For combinations u, v of the seven vectors u'Mv is their inner product, linear in M:
    maximise  w(a_+) (1 - <a_+, theta> - b) + w(a_-) (1 + <a_-, theta> + b)
    with      M positive semidefinite, its block of the basis the identity
              |x - m_y|^2 <= r_y^2                                  for the four points
              <x - m_y, m_+ - m_->^2 <= s_y^2 |m_+ - m_-|^2         likewise, a second-order cone each
                                                                    (s_y over |mu_+ - mu_-|, so that it does not scale)
              1 - y (<a_y, theta> + b) >= 0                         for the support points
"""

from __future__ import annotations

import clarabel
import numpy as np
import scipy.sparse

from poisons.steinhardt.defences import Defence

LABELS = np.array([1, 1, 0, 0])  # of a_+, b_+, a_-, b_-
SUPPORT = np.array([0, 2])
SIZE = 7
COLUMNS, ROWS = np.tril_indices(SIZE)  # Clarabel's order: the upper triangle by columns
SCALE = np.where(ROWS == COLUMNS, 1.0, np.sqrt(2))


class Unsolved(Exception):
    """The solver gave no accurate solution; the message is its status."""


def solve(
    defence: Defence, shares: np.ndarray, theta: np.ndarray, bias: float, weights: np.ndarray,
    random: np.random.Generator, margins: bool = True,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """The four poisons that hurt the model (theta, bias) most.

    shares: float [2], the share of each class among the clean rows, p_-, p_+; theta: float64 [features];
    weights: float [4], poisons per clean row at a_+, b_+, a_-, b_-, of sum epsilon; margins: whether support points
    must lie on the wrong side of their margin, which a model with a large bias can make impossible. Returns the points,
    float64 [4, features], not clipped to any range, and the objective. Raises `Unsolved`.
    """
    basis = np.linalg.svd(np.stack([defence.means[1], defence.means[0], theta]), full_matrices=False)[2]
    combination, poisoned = _combinations(defence, shares, weights, basis)
    axis = poisoned[1] - poisoned[0]
    slabs = defence.slab_radii / np.linalg.norm(defence.axis)
    model = np.concatenate([np.zeros(4), basis @ theta])
    signs = 2.0 * LABELS - 1

    rows, bounds, cones = [], [], []  # row . m <= bound, in the cones' order
    for first in range(3):
        for second in range(first + 1):
            rows.append(_inner(np.eye(SIZE)[4 + first], np.eye(SIZE)[4 + second]))
            bounds.append(float(first == second))
    cones.append(clarabel.ZeroConeT(6))
    for point in range(4):
        away = combination[point] - poisoned[LABELS[point]]
        rows.append(_inner(away, away))
        bounds.append(defence.sphere_radii[LABELS[point]] ** 2)
    for point in SUPPORT if margins else ():
        rows.append(signs[point] * _inner(combination[point], model))
        bounds.append(1 - signs[point] * bias)
    cones.append(clarabel.NonnegativeConeT(6 if margins else 4))
    for point in range(4):  # |(2 L / s, t - 1)| <= t + 1 says L^2 <= s^2 t
        away = combination[point] - poisoned[LABELS[point]]
        squared = _inner(axis, axis)
        rows += [-squared, -2 / slabs[LABELS[point]] * _inner(away, axis), -squared]
        bounds += [1.0, 0.0, -1.0]
        cones.append(clarabel.SecondOrderConeT(3))
    rows += list(-np.diag(SCALE))
    bounds += [0.0] * len(ROWS)
    cones.append(clarabel.PSDTriangleConeT(SIZE))

    objective = sum(weights[point] * signs[point] * _inner(combination[point], model) for point in SUPPORT)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solver = clarabel.DefaultSolver(
        scipy.sparse.csc_matrix((len(ROWS), len(ROWS))),
        objective,
        scipy.sparse.csc_matrix(np.array(rows)),
        np.array(bounds),
        cones,
        settings,
    )
    solution = solver.solve()
    if str(solution.status) != "Solved":
        raise Unsolved(str(solution.status))
    gram = np.zeros((SIZE, SIZE))
    gram[ROWS, COLUMNS] = gram[COLUMNS, ROWS] = solution.x
    loss = sum(weights[point] * (1 - signs[point] * bias) for point in SUPPORT) - float(objective @ solution.x)
    return _points(gram, basis, random), loss


def _combinations(
    defence: Defence, shares: np.ndarray, weights: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The four points and the two poisoned means, each as a combination of the seven vectors: [4, 7] and [2, 7]."""
    points = np.eye(SIZE)[:4]
    poisoned = []
    for label in (0, 1):
        mean = shares[label] * np.concatenate([np.zeros(4), basis @ defence.means[label]])
        total = mean + weights[LABELS == label] @ points[LABELS == label]
        poisoned.append(total / (shares[label] + weights[LABELS == label].sum()))
    return points, np.array(poisoned)


def _inner(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The coefficients of first' M second on the upper triangle of M."""
    product = np.outer(first, second)
    return product[ROWS, COLUMNS] + np.where(ROWS == COLUMNS, 0.0, product[COLUMNS, ROWS])


def _points(gram: np.ndarray, basis: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Vectors with a given Gram matrix with the basis and among each other.

    What lies outside the basis' span points along random directions.
    """
    inside = gram[:4, 4:]
    values, vectors = np.linalg.eigh(gram[:4, :4] - inside @ inside.T)
    directions = random.normal(size=(4, basis.shape[1]))
    directions -= directions @ basis.T @ basis
    directions = np.linalg.qr(directions.T)[0].T
    return inside @ basis + (vectors * np.sqrt(np.clip(values, 0, None))) @ directions
