"""Points that are like no other: medoids of clusters of themselves alone, by greedy facility location."""

from __future__ import annotations

import heapq

import numpy as np


def alone(points: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the points that are medoids of clusters of themselves alone, in any order.

    points: float64 [points, dimensions]; count: of medoids, 1 to the number of points. The next medoid is always the
    point that most reduces the sum of all distances to the nearest medoid; then each point is in the cluster of the
    nearest. Lazily (Minoux 1978): a reduction can only fall, so the largest one known needs to be computed anew and
    no other. Takes 8 bytes for each pair of points.
    """
    squared, similarity = (points**2).sum(1), points @ points.T
    similarity *= -2  # in place: it has as many numbers as there are pairs of points
    similarity += squared
    similarity += squared[:, np.newaxis]
    np.sqrt(np.maximum(similarity, 0, out=similarity), out=similarity)
    np.subtract(similarity.max(), similarity, out=similarity)
    covered, medoids = np.zeros(len(points)), []
    gains = [(-gain, point, 0) for point, gain in enumerate(similarity.sum(1))]
    heapq.heapify(gains)
    while len(medoids) < count:
        gain, point, round_ = heapq.heappop(gains)
        if round_ == len(medoids):
            medoids.append(point)
            covered = np.maximum(covered, similarity[point])
        else:
            gain = np.maximum(similarity[point] - covered, 0).sum()
            heapq.heappush(gains, (-gain, point, len(medoids)))
    chosen = np.array(medoids)
    nearest = chosen[similarity[chosen].argmax(0)]
    sizes = np.bincount(nearest, minlength=len(points))
    return chosen[(sizes[chosen] == 1) & (nearest[chosen] == chosen)]


def alone_on_a_line(points: np.ndarray, count: int) -> np.ndarray:
    """As `alone`, of points on a line, float64 [points]: ten times as fast, and in memory of their number."""
    medoids = chosen_on_a_line(points, count)
    medoids = medoids[np.argsort(points[medoids])]
    borders = (points[medoids[1:]] + points[medoids[:-1]]) / 2
    sizes = np.bincount(np.searchsorted(borders, points), minlength=len(medoids))
    return medoids[sizes == 1]


def chosen_on_a_line(points: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the medoids that `alone` chooses on a line, in the order of choice; fewer than `count` where all
    other points coincide with them.

    A new medoid changes the reductions of the points between its neighbours among the medoids and of no other, and
    those are sums over a range of the sorted points.
    """
    order, medoids = np.argsort(points, kind="stable"), []
    points, is_medoid = points[order], np.zeros(len(points), bool)
    reductions = -_distances(points, 0, len(points))
    while len(medoids) < count:
        medoid = reductions.argmax()
        if medoids and reductions[medoid] <= 0:
            break
        medoids.append(medoid)
        is_medoid[medoid], reductions[medoid] = True, -np.inf
        left = medoid - 1 - is_medoid[:medoid][::-1].argmax() if is_medoid[:medoid].any() else -1
        right = medoid + 1 + is_medoid[medoid + 1 :].argmax() if is_medoid[medoid + 1 :].any() else len(points)
        below = points[left] if left >= 0 else -np.inf
        above = points[right] if right < len(points) else np.inf
        reductions[left + 1 : medoid] = _reductions(points[left + 1 : medoid], below, points[medoid])
        reductions[medoid + 1 : right] = _reductions(points[medoid + 1 : right], points[medoid], above)
    return order[medoids]


def _reductions(points: np.ndarray, below: float, above: float) -> np.ndarray:
    """By how much each of the sorted points between two medoids would reduce the sum of the distances to the nearest.

    It would be the nearest of those from halfway to the medoid below to halfway to the one above.
    """
    nearest = np.concatenate([[0], np.cumsum(np.minimum(points - below, above - points))])
    first, last = np.searchsorted(points, (points + below) / 2), np.searchsorted(points, (points + above) / 2)
    return nearest[last] - nearest[first] - _distances(points, first, last)


def _distances(points: np.ndarray, first: np.ndarray | int, last: np.ndarray | int) -> np.ndarray:
    """The sum of the distances of each of the sorted points to those from its `first` to before its `last`."""
    points = points - points[:1]  # small numbers add up exactly enough
    sums, places = np.concatenate([[0], np.cumsum(points)]), np.arange(len(points))
    return points * (2 * places - first - last) - (2 * sums[places] - sums[first] - sums[last])
