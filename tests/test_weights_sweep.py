"""Weights of a sweep: even, or uniform."""

import numpy as np
import pytest
from scipy.stats import kstest

from mtlsk.weights_sweep import dirichlet, lattice


@pytest.mark.parametrize(("k", "n"), [(1, 3), (2, 1), (2, 5), (3, 12), (3, 17), (7, 60)])
def test_lattice_points_lie_on_the_simplex_once_each(k, n):
    points = lattice(k, n)
    assert points.shape == (n, k)
    np.testing.assert_allclose(points.sum(axis=1), 1)
    assert (points >= 0).all()
    assert points[0] == pytest.approx(np.full(k, 1 / k))
    if k > 1:
        gaps = np.abs(points[:, None] - points[None]).sum(axis=2)
        assert gaps[~np.eye(n, dtype=bool)].min(initial=np.inf) > 1e-9


def test_a_part_of_a_lattice_is_spread_over_all_of_it():
    points = lattice(3, 12)  # of the 15 with H = 4, and the centre
    for corner in np.eye(3):
        assert (np.abs(points - corner).sum(axis=1) < 1e-9).any()
    assert sorted(lattice(2, 9)[:, 0]) == pytest.approx(np.linspace(0, 1, 9))


def test_a_longer_lattice_begins_with_the_shorter_one():
    for n in (1, 3, 8, 20):
        np.testing.assert_array_equal(lattice(3, 40)[:n], lattice(3, n))


def test_dirichlet_draws_are_uniform_and_begin_with_the_shorter_sweep():
    points = dirichlet(3, 2000, seed=0)
    assert points[0] == pytest.approx(np.full(3, 1 / 3))
    np.testing.assert_array_equal(points[:5], dirichlet(3, 5, seed=0))
    assert not np.array_equal(points[1], dirichlet(3, 2, seed=1)[1])
    # a coordinate of a uniform point of the simplex is Beta(1, K - 1)
    assert kstest(points[1:, 0], "beta", args=(1, 2)).pvalue > 0.01
