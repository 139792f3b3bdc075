"""The comparison of two fronts and what is said of it."""

import numpy as np
import pytest

from mtlsk.pareto import FrontIndicators
from mtlsk.verdict import Comparison, compare_fronts


def test_compare_fronts_by_hand():
    # Box [0, 10] x [100, 300]; in its units search = (0, .5), (.5, 0), scalarization = (1, 1).
    found = compare_fronts([[0, 200], [5, 100]], [[10, 300]])
    assert found.search.hypervolume == pytest.approx(1.1 * 0.6 + 0.6 * 0.5)
    assert found.scalarization.hypervolume == pytest.approx(0.1 * 0.1)
    assert found.search.igd_plus == 0.0
    assert found.scalarization.igd_plus == pytest.approx(np.hypot(1, 0.5))
    assert found.undominated[0].tolist() == [True, True]
    assert found.undominated[1].tolist() == [False]


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_comparison_is_mirrored_and_blind_to_units(m):
    rng = np.random.default_rng(m)
    a, b = rng.uniform(size=(7, m)), rng.uniform(size=(5, m))
    units, shift = 10.0 ** rng.integers(-4, 4, size=m), rng.normal(size=m)
    one, two = compare_fronts(a, b), compare_fronts(b * units + shift, a * units + shift)
    assert (one.undominated[0] == two.undominated[1]).all()
    assert (one.undominated[1] == two.undominated[0]).all()
    for x, y in ((one.search, two.scalarization), (one.scalarization, two.search)):
        assert x.hypervolume == pytest.approx(y.hypervolume, rel=1e-6)
        assert x.igd_plus == pytest.approx(y.igd_plus, rel=1e-6, abs=1e-9)
        assert x.epsilon == pytest.approx(y.epsilon, rel=1e-6, abs=1e-9)


def test_an_objective_without_range_keeps_its_unit():
    found = compare_fronts([[1.0, 7.0]], [[2.0, 7.0]])
    assert found.search.hypervolume == pytest.approx(1.1 * 1.1)
    assert found.scalarization.hypervolume == pytest.approx(0.1 * 1.1)


def test_empty_fronts():
    none = np.empty((0, 2))
    found = compare_fronts(none, [[1.0, 2.0]])
    assert found.search.hypervolume == 0.0
    assert np.isnan(found.search.igd_plus)
    assert found.undominated[0].shape == (0,)
    assert found.undominated[1].tolist() == [True]
    assert "the search gave no point" in found.verdict()
    assert "scalarization gave no point" in compare_fronts([[1.0, 2.0]], none).verdict()
    both = compare_fronts(none, none)
    assert both.search.hypervolume == both.scalarization.hypervolume == 0.0
    assert "the search and scalarization gave no point" in both.verdict()


def comparison(a, b):
    """Two fronts far apart in value, with the hypervolumes a and b."""
    points, mask = np.array([[1.0, 9.0], [9.0, 1.0]]), np.array([True, False])
    fronts = (FrontIndicators(points, volume, 0.0, 0.0) for volume in (a, b))
    return Comparison(*fronts, (mask, mask))


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
