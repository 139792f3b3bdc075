"""Dominance and indicators against brute force, sweeps and formulas, never against moocore."""

import numpy as np
import pytest

from mtlsk.pareto import (
    Comparison,
    FrontIndicators,
    compare_fronts,
    hypervolume,
    igd_plus,
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
        (lambda: compare_fronts([[1.0]], [[1.0, 2.0]]), "must agree"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_compare_fronts_by_hand():
    # Box [0, 10] x [100, 300]; in its units search = (0, .5), (.5, 0), scalarization = (1, 1).
    found = compare_fronts([[0, 200], [5, 100]], [[10, 300]])
    assert found.search.hypervolume == pytest.approx(1.1 * 0.6 + 0.6 * 0.5)
    assert found.scalarization.hypervolume == pytest.approx(0.1 * 0.1)
    assert found.search.igd_plus == 0.0
    assert found.scalarization.igd_plus == pytest.approx(np.hypot(1, 0.5))
    assert found.search.undominated.tolist() == [True, True]
    assert found.scalarization.undominated.tolist() == [False]


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_comparison_is_mirrored_and_blind_to_units(m):
    rng = np.random.default_rng(m)
    a, b = rng.uniform(size=(7, m)), rng.uniform(size=(5, m))
    units, shift = 10.0 ** rng.integers(-4, 4, size=m), rng.normal(size=m)
    one, two = compare_fronts(a, b), compare_fronts(b * units + shift, a * units + shift)
    for x, y in ((one.search, two.scalarization), (one.scalarization, two.search)):
        assert x.hypervolume == pytest.approx(y.hypervolume, rel=1e-6)
        assert x.igd_plus == pytest.approx(y.igd_plus, rel=1e-6, abs=1e-9)
        assert (x.undominated == y.undominated).all()


def test_an_objective_without_range_keeps_its_unit():
    found = compare_fronts([[1.0, 7.0]], [[2.0, 7.0]])
    assert found.search.hypervolume == pytest.approx(1.1 * 1.1)
    assert found.scalarization.hypervolume == pytest.approx(0.1 * 1.1)


def test_empty_fronts():
    none = np.empty((0, 2))
    found = compare_fronts(none, [[1.0, 2.0]])
    assert found.search.hypervolume == 0.0
    assert np.isnan(found.search.igd_plus)
    assert found.search.undominated.shape == (0,)
    assert found.scalarization.undominated.tolist() == [True]
    assert "the search gave no point" in found.verdict()
    assert "scalarization gave no point" in compare_fronts([[1.0, 2.0]], none).verdict()
    both = compare_fronts(none, none)
    assert both.search.hypervolume == both.scalarization.hypervolume == 0.0
    assert "the search and scalarization gave no point" in both.verdict()


def comparison(a, b):
    """Two fronts far apart in value, with the hypervolumes a and b."""
    points, mask = np.array([[1.0, 9.0], [9.0, 1.0]]), np.array([True, False])
    return Comparison(FrontIndicators(points, a, 0.0, mask), FrontIndicators(points, b, 0.0, mask))


@pytest.mark.parametrize(
    ("a", "b", "begins", "says"),
    [
        (0.6, 0.5, "The search wins", "0.6 against scalarization's 0.5 (20 % larger)"),
        (0.5, 0.6, "Scalarization wins", "0.6 against the searched front's 0.5 (20 % larger)"),
        (0.6, 0.2, "The search wins", "(3 times; best values differ by at most 0 %)"),
        (0.5, 0.5045, "A tie", "differ by 0.9 %"),
        (0.5045, 0.5, "A tie", "differ by 0.9 %"),
        (0.5, 0.506, "Scalarization wins", "1.2 % larger"),
    ],
)
def test_verdict(a, b, begins, says):
    verdict = comparison(a, b).verdict()
    assert verdict.startswith(begins)
    assert says in verdict
    assert "Of the searched front 1 of 2 points is dominated by no scalarization point" in verdict
    assert "of scalarization's front 1 of 2 points is dominated by no searched point" in verdict


def test_a_small_difference_is_a_tie_however_the_box_stretches_it():
    found = compare_fronts([[1.0, 2.0]], [[1.005, 2.01], [1.006, 2.01]])
    assert found.search.hypervolume > 10 * found.scalarization.hypervolume
    assert found.verdict().startswith("A tie: all points of both fronts lie within 1 %")


def test_a_large_ratio_of_volumes_says_how_little_the_values_differ():
    verdict = compare_fronts([[1.0, 2.0]], [[1.02, 2.1], [1.03, 2.05]]).verdict()
    assert verdict.startswith("The search wins")
    assert "times; best values differ by at most 2.44 %)" in verdict


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ([[0.9]], [[1.0]], "The search wins: {} 10 % better."),
        ([[1.5], [0.9]], [[1.0]], "The search wins: {} 10 % better."),
        ([[1.0]], [[0.9]], "Scalarization wins: {} 10 % worse."),
        ([[-0.8]], [[-1.0]], "Scalarization wins: {} 20 % worse."),
        ([[1.0]], [[1.005]], "A tie: {} 0.498 % better."),
        ([[0.0]], [[0.0]], "A tie: {} equal."),
        ([[1.0, 2.0]], [[1.0, 2.5]], "The search wins: {} equal, 20 % better."),
        ([[1.0, 2.5]], [[0.9, 2.0]], "Scalarization wins: {} 10 % worse, 20 % worse."),
        ([[1.0, 2.5]], [[1.25, 2.0]], "Neither wins: {} 20 % better, 20 % worse."),
        ([[1.0, 2.0]], [[1.005, 1.99]], "A tie: {} 0.498 % better, 0.5 % worse."),
    ],
)
def test_two_single_points_are_compared_by_value(a, b, says):
    middle = "each front comes down to one point, and by objective the searched one is"
    assert compare_fronts(a, b).verdict() == says.format(middle)
