"""Dominance and indicators against brute force, sweeps and formulas, never against moocore."""

import numpy as np
import pytest

from mtlsk.pareto import (
    epsilon,
    hypervolume,
    igd_plus,
    is_exact,
    measure_fronts,
    non_dominated,
    undominated_by,
)


def dominates(x, y):
    return all(a <= b for a, b in zip(x, y, strict=True)) and any(
        a < b for a, b in zip(x, y, strict=True)
    )


def grid_points(n, m, seed):
    """Small integers, so that ties and equal points are frequent."""
    return np.random.default_rng(seed).integers(0, 5, size=(n, m)).astype(float)


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_non_dominated_is_brute_force_with_the_first_of_equals(m, seed):
    x = grid_points(25, m, seed)
    expected = [
        not any(dominates(y, p) for y in x) and not any((y == p).all() for y in x[:i])
        for i, p in enumerate(x)
    ]
    mask = non_dominated(x)
    assert mask.dtype == bool
    assert mask.tolist() == expected


def test_non_dominated_keeps_one_of_equal_points():
    assert non_dominated([[1, 0], [0, 1], [1, 0], [1, 1]]).tolist() == [True, True, False, False]


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_undominated_by_is_brute_force(m, seed):
    x, y = grid_points(25, m, seed), grid_points(6, m, seed + 100)
    expected = [not any(dominates(b, a) for b in y) for a in x]
    assert undominated_by(x, y).tolist() == expected


def test_an_equal_point_is_undominated():
    assert undominated_by([[1, 2]], [[1, 2]]).tolist() == [True]
    assert undominated_by([[1, 2]], [[1, 2], [1, 1]]).tolist() == [False]
    # points of one set do not count against each other
    assert undominated_by([[1, 1], [2, 2]], [[3, 3]]).tolist() == [True, True]


def sweep(points, reference):
    """Area that points dominate up to the reference, by sorted slabs."""
    area, height = 0.0, reference[1]
    for x, y in sorted(map(tuple, points)):
        if x < reference[0] and y < height:
            area += (reference[0] - x) * (height - y)
            height = y
    return area


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_of_two_objectives_is_the_sweep(seed):
    x = np.random.default_rng(seed).uniform(-1, 1.5, size=(30, 2))  # some beyond the reference
    assert hypervolume(x, [1.0, 1.2]) == pytest.approx(sweep(x, (1.0, 1.2)), rel=1e-12)


@pytest.mark.parametrize("m", [1, 3, 5])
def test_hypervolume_is_inclusion_and_exclusion(m):
    x = np.random.default_rng(m).uniform(0, 1, size=(8, m))
    total = 0.0
    for subset in range(1, 2**8):
        members = x[[bool(subset >> i & 1) for i in range(8)]]
        total -= (-1) ** len(members) * np.prod(1.1 - members.max(axis=0))
    assert hypervolume(x, np.full(m, 1.1)) == pytest.approx(total, rel=1e-9)


def test_hypervolume_of_three_objectives_is_a_sampled_share():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, size=(20, 3))
    samples = rng.uniform(0, 1.1, size=(50_000, 3))
    share = (x[None] <= samples[:, None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(x, [1.1] * 3) == pytest.approx(share * 1.1**3, rel=0.02)


def test_points_beyond_the_reference_add_nothing():
    assert hypervolume([[2.0, 0.5]], [1, 1]) == 0.0
    assert hypervolume(np.empty((0, 2)), [1, 1]) == 0.0


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_igd_plus_is_its_formula(m):
    rng = np.random.default_rng(m)
    x, front = rng.uniform(size=(12, m)), rng.uniform(size=(9, m))
    distances = [min(np.linalg.norm(np.maximum(p - r, 0)) for p in x) for r in front]
    assert igd_plus(x, front) == pytest.approx(np.mean(distances), rel=1e-12)


def test_igd_plus_without_points_is_unknown_not_perfect():
    assert np.isnan(igd_plus(np.empty((0, 2)), [[1, 1]]))
    assert np.isnan(igd_plus([[1, 1]], np.empty((0, 2))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: non_dominated([1.0, 2.0]), "shape"),
        (lambda: non_dominated([[np.nan, 1.0]]), "not finite"),
        (lambda: undominated_by([[1.0]], [[1.0, 2.0]]), "must agree"),
        (lambda: hypervolume([[1.0, 2.0]], [1.0]), "must agree"),
        (lambda: hypervolume([[1.0, 2.0]], [[1.0, 1.0], [2.0, 2.0]]), "one point"),
        (lambda: igd_plus([[np.inf, 1.0]], [[1.0, 1.0]]), "not finite"),
        (lambda: measure_fronts({"a": [[1.0]], "b": [[1.0, 2.0]]}), "must agree"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_epsilon_is_the_largest_step_needed():
    rng = np.random.default_rng(0)
    x, front = rng.uniform(size=(2, 9, 3))
    expected = max(min(max(p - r) for p in x) for r in front)
    assert epsilon(x, front) == pytest.approx(expected)
    assert epsilon(front, front) == 0.0
    assert np.isnan(epsilon(np.empty((0, 3)), front))


def test_measured_fronts_share_a_box():
    found = measure_fronts({"a": [[0, 200]], "b": [[10, 100]], "c": np.empty((0, 2))})
    assert found["a"].hypervolume == pytest.approx(1.1 * 0.1)
    assert found["b"].epsilon == pytest.approx(1.0)
    assert found["c"].hypervolume == 0.0
    assert np.isnan(found["c"].epsilon)
    with pytest.raises(ValueError, match="no front to measure"):
        measure_fronts({})


def test_large_volumes_are_approximated_closely(monkeypatch):
    x = np.abs(np.random.default_rng(0).normal(size=(60, 5)))
    x = 1 - x / np.linalg.norm(x, axis=1, keepdims=True)
    exact = hypervolume(x, np.full(5, 1.1))
    assert is_exact(60, 5)
    assert not is_exact(1000, 7)
    monkeypatch.setattr("mtlsk.pareto.EXACT", 0)
    near = hypervolume(x, np.full(5, 1.1))
    assert near != exact
    assert near == pytest.approx(exact, rel=2e-3)
