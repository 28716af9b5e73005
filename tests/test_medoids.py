"""Points that are like no other (`models.medoids`), beside the greedy choice as it is defined."""

import numpy as np
import pytest

from models import medoids
from tests import shaping_oracle as oracle


def outputs_of(seed: int) -> np.ndarray:
    """The other class's softmax outputs as a training leaves them: most near 0, some anywhere."""
    return 1 / (1 + np.exp(3 + 2.5 * np.random.default_rng(seed).normal(size=150)))


@pytest.mark.parametrize("seed", range(5))
def test_every_medoid_on_a_line_reduces_the_distances_most(seed):
    """Neighbours can reduce them by the same, so a choice is right if none would reduce them by more."""
    line = outputs_of(seed)
    distances = np.abs(line[:, np.newaxis] - line)
    chosen = medoids.chosen_on_a_line(line, 100)
    assert len(set(chosen)) == 100
    assert distances[chosen[0]].sum() <= distances.sum(1).min() + 1e-12
    for number in range(1, 100):
        nearest = distances[chosen[:number]].min(0)
        reductions = np.maximum(nearest - distances, 0).sum(1)
        assert reductions[chosen[number]] >= reductions.max() - 1e-12
        clusters = np.bincount(distances[:, chosen[:number]].argmin(1), minlength=number)
        assert set(medoids.alone_on_a_line(line, number)) == set(chosen[:number][clusters == 1])
    assert (clusters == 1).sum() > 10


def test_on_a_line_and_in_the_plane_the_isolated_ones_are_the_same():
    line = np.concatenate([np.linspace(0, 0.01, 30), [0.4, 0.7, 0.95], np.full(20, 0.2)])
    for count in (5, 8):
        plane = medoids.alone(np.stack([line, -line], 1), count)
        assert set(medoids.alone_on_a_line(line, count)) == set(plane) == {30, 31, 32}


def test_points_that_coincide_are_never_alone():
    assert not len(medoids.alone_on_a_line(np.repeat([0.1, 0.5, 0.8], 4), 12))
    assert set(medoids.alone_on_a_line(np.array([0.1, 0.1, 0.5, 0.8, 0.8]), 5)) == {2}
    assert set(medoids.alone_on_a_line(np.array([0.3]), 1)) == {0}


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_in_more_dimensions_they_are_those_of_the_definition(share):
    random = np.random.default_rng(1)
    outputs = np.exp(2 * random.normal(size=(120, 4)))
    outputs /= outputs.sum(1, keepdims=True)
    expected = oracle.epic_dropped(outputs, np.zeros(120, int), np.ones(120, bool), share)
    assert expected.any()
    assert set(medoids.alone(outputs - np.eye(4)[0], round(share * 120))) == set(np.flatnonzero(expected))
