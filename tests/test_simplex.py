"""Small convex problems, by brute force, their KKT conditions and general solvers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize

from mtlsk.aggregators.online_dual import nearest, nearest_on_simplex
from mtlsk.simplex import linear_plus_norm, min_norm_point, shortest_increase


def project_on_simplex(v):
    """The projection on the device and the one on the host, which must agree."""
    on_device, on_host = nearest_on_simplex(torch.from_numpy(v)).numpy(), nearest(v.tolist())
    np.testing.assert_allclose(on_host, on_device, atol=1e-15)
    return on_device


def gradient_set(seed, ratio=1.0):
    """Return J (K, 12), K from 2 to 10: independent, correlated or conflicting rows in turn."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 11))
    j = rng.standard_normal((k, 12))
    common = rng.standard_normal(12)
    if seed % 3 == 1:
        j = 0.3 * j + common
    if seed % 3 == 2:
        j += np.where(np.arange(k) % 2 == 0, 1.0, -1.0)[:, None] * common
    return j * np.geomspace(1.0, ratio, k)[rng.permutation(k), None]


def faces(k):
    for size in range(1, k + 1):
        yield from (list(f) for f in itertools.combinations(range(k), size))


def shortest_by_faces(g):
    """Return min w'Gw over the simplex: the best interior stationary point of all faces."""
    best = math.inf
    for face in faces(len(g)):
        x = np.linalg.solve(g[np.ix_(face, face)], np.ones(len(face)))
        if (x >= 0).all():
            best = min(best, 1 / x.sum())
    return best


def slsqp_on_simplex(value, slope, k):
    """Return the least value that SLSQP finds from the centre and from near each corner."""
    total = LinearConstraint(np.ones(k), 1, 1)
    starts = [np.full(k, 1 / k), *(0.9 * np.eye(k) + 0.1 / k)]
    return min(
        minimize(
            value,
            x,
            jac=slope,
            method="SLSQP",
            bounds=[(0, 1)] * k,
            constraints=[total],
            options={"ftol": 1e-15, "maxiter": 500},
        ).fun
        for x in starts
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_projection_on_the_simplex_satisfies_kkt(seed):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(int(rng.integers(1, 12))) * 10 ** rng.uniform(-3, 3)
    w = project_on_simplex(v)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)
    # v - w is the same number tau on the support, and not above it elsewhere
    tau = (v - w)[w > 0]
    np.testing.assert_allclose(tau, tau[0], atol=1e-12 * max(1, abs(v).max()))
    assert (v <= tau[0] + 1e-12 * max(1, abs(v).max()))[w == 0].all()


def test_the_projection_is_the_nearest_point_of_a_dense_grid():
    steps = np.array([(i, n - i) for n in range(101) for i in range(n + 1)])
    grid = np.column_stack([steps, 100 - steps.sum(1)]) / 100
    for v in np.random.default_rng(0).standard_normal((20, 3)):
        w = project_on_simplex(v)
        assert np.linalg.norm(w - v) <= np.linalg.norm(grid - v, axis=1).min() + 1e-12


def test_the_projection_of_a_point_of_the_simplex_is_itself():
    w = np.array([0.2, 0.0, 0.5, 0.3])
    np.testing.assert_allclose(project_on_simplex(w), w, atol=1e-15)
    np.testing.assert_allclose(project_on_simplex(w + 7.0), w, atol=1e-14)


@pytest.mark.parametrize("ratio", [1.0, 1e3])
@pytest.mark.parametrize("seed", range(15))
def test_the_min_norm_point_is_optimal(seed, ratio):
    j = gradient_set(seed, ratio)
    g = j @ j.T
    w = min_norm_point(g)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-14)
    squared = float(np.square(w @ j).sum())
    # the optimality gap: <g_i, d> >= |d|^2 for every task
    assert squared - (j @ (w @ j)).min() <= 1e-10 * squared


@pytest.mark.parametrize("ratio", [1.0, 1e3])
@pytest.mark.parametrize("seed", range(9))
def test_the_min_norm_point_is_the_best_of_all_faces(seed, ratio):
    j = gradient_set(seed, ratio)[:7]
    g = j @ j.T
    w = min_norm_point(g)
    assert w @ g @ w == pytest.approx(shortest_by_faces(g), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_min_norm_point_is_not_beaten_by_slsqp(seed):
    j = gradient_set(seed)
    g = j @ j.T / np.square(j).sum(1).max()
    w = min_norm_point(g)
    best = slsqp_on_simplex(lambda x: x @ g @ x, lambda x: 2 * g @ x, len(g))
    assert w @ g @ w <= best * (1 + 1e-9)
    assert w @ g @ w == pytest.approx(best, rel=1e-4)  # SLSQP did find it


@pytest.mark.parametrize(
    ("gramian", "expected"),
    [
        ([[4.0]], [1.0]),
        ([[1.0, 0.0], [0.0, 4.0]], [0.8, 0.2]),
        ([[1.0, 2.0], [2.0, 9.0]], [1.0, 0.0]),  # the longer one only adds length
        ([[1.0, -2.0], [-2.0, 4.0]], [2 / 3, 1 / 3]),  # opposite: the point is zero
    ],
)
def test_min_norm_points_by_hand(gramian, expected):
    np.testing.assert_allclose(min_norm_point(np.array(gramian)), expected, atol=1e-12)


def test_the_min_norm_point_of_a_singular_gramian():
    j = np.random.default_rng(0).standard_normal((3, 5))
    j = np.vstack([j, j[:1], 2 * j[1:2]])
    w = min_norm_point(j @ j.T)
    squared = np.square(w @ j).sum()
    assert squared == pytest.approx(shortest_by_faces(j[:3] @ j[:3].T), rel=1e-9)


@pytest.mark.parametrize("ratio", [1.0, 1e3])
@pytest.mark.parametrize("seed", range(12))
def test_the_shortest_increase_satisfies_kkt(seed, ratio):
    j = gradient_set(seed, ratio)
    k = len(j)
    start = np.full(k, 1 / k)
    a = shortest_increase(j @ j.T, start)
    u = a - start
    d = a @ j
    assert u.min() >= -1e-12
    # stationary: no task is hurt, and those whose weight grew are just not hurt
    progress = (j @ d) / np.linalg.norm(j, axis=1) / np.linalg.norm(start @ j)
    assert progress.min() >= -1e-9
    assert abs(progress[u > 1e-9 * a.max()]).max(initial=0) <= 1e-9


def test_a_mean_that_hurts_nobody_is_not_increased():
    g = np.array([[1.0, 0.2], [0.2, 3.0]])
    np.testing.assert_array_equal(shortest_increase(g, np.array([0.5, 0.5])), [0.5, 0.5])


def problem(seed, ratio):
    """Return linear term, Gramian and radius of the kind that CAGrad and ConicGrad make."""
    j = gradient_set(seed, ratio)
    g = j @ j.T
    g /= g.diagonal().max()
    radius = [0.05, 0.5, 2.0][seed % 3] * math.sqrt(g.mean())
    return g.mean(1), g, radius


@pytest.mark.parametrize("ratio", [1.0, 1e3])
@pytest.mark.parametrize("seed", range(20))
def test_linear_plus_norm_closes_its_gap(seed, ratio):
    linear, g, radius = problem(seed, ratio)
    k = len(g)
    w = linear_plus_norm(linear, g, radius, 0.5 * min_norm_point(g) + 0.5 / k)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)
    length = math.sqrt(w @ g @ w)
    value = linear @ w + radius * length
    slope = linear + radius * (g @ w) / length
    assert value - slope.min() <= 1e-9 * abs(value)


@pytest.mark.parametrize("c", [2.0])
def test_linear_plus_norm_closes_its_gap_near_its_kink(c):
    gaps = []
    for seed in range(302, 602, 3):  # conflicting rows: the solution is near w'Gw = 0
        j = gradient_set(seed, [1.0, 10.0, 1e3][seed // 3 % 3])
        k, g = len(j), j @ j.T
        g /= g.diagonal().max()
        linear, radius = g.mean(1), c * math.sqrt(g.mean())
        w = linear_plus_norm(linear, g, radius, 0.5 * min_norm_point(g) + 0.5 / k)
        slope = linear + radius * (g @ w) / math.sqrt(w @ g @ w)
        gaps.append((slope @ w - slope.min()) / abs(slope @ w))
    assert max(gaps) <= 1e-8, f"set {302 + 3 * int(np.argmax(gaps))}: {max(gaps):.1e}"


@pytest.mark.parametrize("seed", range(6))
def test_linear_plus_norm_is_not_beaten_by_slsqp(seed):
    linear, g, radius = problem(seed, 10.0)

    def value(w):
        return linear @ w + radius * math.sqrt(w @ g @ w)

    def slope(w):
        return linear + radius * (g @ w) / math.sqrt(w @ g @ w)

    w = linear_plus_norm(linear, g, radius, np.full(len(g), 1 / len(g)))
    best = slsqp_on_simplex(value, slope, len(g))
    assert value(w) <= best + 1e-9 * abs(best)
    assert value(w) == pytest.approx(best, rel=1e-4)


def test_linear_plus_norm_on_a_dense_grid_of_two_tasks():
    g, linear = np.array([[1.0, -0.3], [-0.3, 0.25]]), np.array([0.1, 0.4])
    x = np.linspace(0, 1, 200_001)
    grid = np.column_stack([x, 1 - x])
    for radius in (0.0, 0.2, 1.0, 5.0):
        values = grid @ linear + radius * np.sqrt(np.einsum("ni,ij,nj->n", grid, g, grid))
        w = linear_plus_norm(linear, g, radius, np.array([0.5, 0.5]))
        got = linear @ w + radius * math.sqrt(w @ g @ w)
        assert got == pytest.approx(values.min(), rel=1e-8)
        np.testing.assert_allclose(w, grid[values.argmin()], atol=1e-4)


def test_without_a_norm_the_least_linear_term_takes_all():
    g = np.eye(3)
    w = linear_plus_norm(np.array([0.3, 0.1, 0.2]), g, 0.0, np.full(3, 1 / 3))
    np.testing.assert_allclose(w, [0, 1, 0], atol=1e-9)
