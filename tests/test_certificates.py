"""Certificates against what they promise, checked in the space of directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtlsk.certificates import critical_cone, h


def gradient_set(seed):
    """Return J (K, 6), K from 2 to 5, with conflicts."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 6))
    j = rng.standard_normal((k, 6))
    return j * 10 ** rng.uniform(-1, 1, (k, 1))


def best_worst_progress(j, c):
    """Return max min_i <g_i, d>/|g_i| over |d| <= 1 in the cone, by SLSQP on (d, t)."""
    units = j / np.linalg.norm(j, axis=1, keepdims=True)
    e = j.mean(0) / np.linalg.norm(j.mean(0))
    constraints = [
        {"type": "ineq", "fun": lambda x: units @ x[:-1] - x[-1]},
        {"type": "ineq", "fun": lambda x: 1 - x[:-1] @ x[:-1]},
        {"type": "ineq", "fun": lambda x: e @ x[:-1] - c * math.sqrt(x[:-1] @ x[:-1] + 1e-30)},
    ]
    rng = np.random.default_rng(0)
    best = 0.0
    for _ in range(6):
        start = np.append(0.5 * e + 0.05 * rng.standard_normal(len(e)), 0.0)
        found = minimize(
            lambda x: -x[-1],
            start,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        d = found.x[:-1] / np.linalg.norm(found.x[:-1])
        if e @ d >= c - 1e-9:  # judge the direction itself, not what the solver says
            best = max(best, (units @ d).min())
    return best


def gramian(j):
    return torch.from_numpy(j @ j.T)


@pytest.mark.parametrize("seed", range(12))
def test_all_tasks_can_improve_in_the_cone_iff_c_is_below_the_critical_one(seed):
    j = gradient_set(seed)
    critical = critical_cone(gramian(j))
    assert 0 < critical < 1 + 1e-12
    assert best_worst_progress(j, critical - 0.01) > 1e-5
    if critical < 0.99:
        assert best_worst_progress(j, critical + 0.005) <= 1e-8


def test_the_sets_of_the_test_above_are_on_both_sides():
    values = [critical_cone(gramian(gradient_set(seed))) for seed in range(12)]
    assert sum(v < 0.99 for v in values) >= 4
    assert sum(v >= 0.99 for v in values) >= 2


def test_a_mean_that_hurts_nobody_has_one():
    j = np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [0.0, 0.1, 2.0]])
    assert critical_cone(gramian(j)) == 1
    assert critical_cone(gramian(j[:1])) == 1


def test_two_tasks_by_hand():
    # g0 = (1, .5); it hurts task 2, and the nearest direction that does not is orthogonal to it
    j = np.array([[3.0, 0.0], [-1.0, 1.0]])
    assert critical_cone(gramian(j)) == pytest.approx(math.cos(math.radians(45) - math.atan(0.5)))


def test_opposite_tasks_have_zero():
    j = np.array([[3.0, 0.0], [-1.0, 0.0]])
    assert critical_cone(gramian(j)) == pytest.approx(0, abs=1e-7)
    assert critical_cone(gramian(np.array([[1.0, 0.0], [-1.0, 0.0]]))) == 0
    assert critical_cone(torch.zeros(2, 2, dtype=torch.float64)) == 0


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_it_knows_no_units_and_no_order(scale):
    j = gradient_set(3)
    expected = critical_cone(gramian(j))
    assert critical_cone(gramian(scale * j[::-1])) == pytest.approx(expected, rel=1e-9)


def test_a_zero_gradient_is_left_out():
    j = np.array([[3.0, 0.0], [-1.0, 1.0]])
    both = critical_cone(gramian(j))
    assert critical_cone(gramian(np.vstack([j, [[0.0, 0.0]]]))) == pytest.approx(both, rel=1e-12)


def test_h_is_the_mean_of_the_squared_losses():
    assert h(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)) == 7.0
