"""When a front has come to rest."""

import numpy as np
import pytest

from mtlsk.stopping import growth


def test_a_front_that_gains_nothing_does_not_grow():
    front = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
    worse = [[1.0, 1.0], [0.9, 0.9]]
    assert growth([*front, *worse], 2) == pytest.approx(0.0)
    assert growth([*worse, *front], 3) > 0.5
    assert growth([*front, *worse], 5) == 1.0  # nothing to compare with yet


def test_growth_is_the_share_of_the_present_volume_that_came_last():
    # box [0, 1]^2, reference 1.1: corners cover 0.1 * 1.1 each (0.01 in common), (.5, .5) 0.36
    before = 2 * 0.1 * 1.1 - 0.01
    now = before + 0.5 * 0.5
    found = growth([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], 1)
    assert found == pytest.approx(1 - before / now)


def test_units_and_wild_values_make_no_difference():
    rng = np.random.default_rng(0)
    values = rng.random((30, 2))
    wild = np.vstack([values[:5], [[1e9, 1e9]], values[5:]])
    assert growth(values, 10) == pytest.approx(growth(values * [1e3, 1e-3], 10))
    assert growth(values, 10) == pytest.approx(growth(wild, 10))


def test_one_objective_and_equal_values():
    assert growth([[3.0], [2.0], [2.0], [2.5]], 2) == pytest.approx(0.0)
    assert growth([[3.0], [2.5], [2.0]], 1) > 0
    assert growth([[1.0, 1.0]] * 4, 2) == pytest.approx(0.0)
