"""Nash-MTL: its optimality condition, the bargain itself, and what happens at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtlsk.aggregators import FairGrad, NashMTL
from mtlsk.simplex import fair_weights
from mtlsk.testing import gradients


def weights(j):
    return NashMTL().task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("seed", range(12))
def test_its_optimality_condition(seed, ratio):
    j = gradients(seed, k=2 + seed % 6, m=9, ratio=ratio)
    g = j @ j.T
    w = weights(j) * len(j)
    product = w * (g @ w) / g.norm()
    torch.testing.assert_close(product, torch.ones(len(j)).double(), rtol=1e-9, atol=0)
    assert float(w.min()) > 0


@pytest.mark.parametrize("seed", range(9))
def test_no_direction_of_the_ball_has_a_larger_product_of_gains(seed):
    j = gradients(seed, k=4, m=5, ratio=3.0).numpy()
    d = weights(torch.from_numpy(j)).numpy() @ j
    d /= np.linalg.norm(d)
    mine = np.log(j @ d).sum()
    found = minimize(
        lambda x: -np.log(np.maximum(j @ x, 1e-9)).sum(),
        0.5 * d + 0.01 * j[0] / np.linalg.norm(j),
        jac=lambda x: -(1 / np.maximum(j @ x, 1e-9)) @ j,
        constraints={"type": "ineq", "fun": lambda x: 1 - x @ x, "jac": lambda x: -2 * x},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert -found.fun <= mine + 1e-8
    np.testing.assert_allclose(found.x, d, atol=1e-3)  # SLSQP did find it


def test_its_length_is_the_same_for_all_gradients_of_one_size():
    for seed in range(12):
        j = gradients(seed)
        size = float((j @ j.T).norm())
        assert float((weights(j) @ j).norm()) == pytest.approx(math.sqrt(3 * size) / 3)


def test_by_hand():
    # orthogonal: w_k = 1/|g_k|, at |G| = sqrt(1 + 16), over K = 2
    j = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([1.0, 0.5], dtype=torch.float64) * 17**0.25 / 2
    torch.testing.assert_close(weights(j), expected)
    alone = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    assert weights(alone).tolist() == pytest.approx([1.0])
    same = torch.ones(4, 2, dtype=torch.float64)
    assert weights(same).tolist() == pytest.approx([0.25] * 4)


def test_one_unit_of_all_losses_changes_no_weight():
    j = gradients(2)
    for scale in (1e-8, 1e6):
        torch.testing.assert_close(weights(scale * j), weights(j), rtol=1e-9, atol=0)


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6])
def test_nearly_opposite_gradients(angle):
    """The bisector at its length, as long as the Gramian can tell it from zero."""
    j = torch.tensor([[1.0, angle], [-100.0, 100 * angle]], dtype=torch.float64)
    d = weights(j) @ j
    assert float(d[1] / d.norm()) == pytest.approx(1, abs=1e-3)
    assert float(d.norm()) == pytest.approx(math.sqrt(2 * float((j @ j.T).norm())) / 2, rel=0.01)


def test_the_update_is_zero_where_no_direction_helps_all():
    triangle = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [-0.6, -0.8]], dtype=torch.float64)
    opposite = torch.tensor([[1.0, 2.0, 0.0], [-3.0, -6.0, 0.0], [0.0, 0.0, 1.0]]).double()
    for j in (triangle, 1e3 * triangle, opposite, torch.diag(torch.tensor([1.0, 1e3, 1])).double()):
        d = weights(j) @ j
        if j.shape == (3, 3) and float(torch.linalg.det(j)) != 0:
            assert bool((j @ d > 0).all())  # no such point
        else:
            assert float(d.norm()) <= 1e-7 * float(j.norm())
            assert bool((weights(j) >= 0).all())


def test_a_zero_gradient_is_left_out():
    j = gradients(1)
    with_zero = torch.cat([j[:1], torch.zeros(1, 8, dtype=torch.float64), j[1:]])
    w = weights(with_zero)
    assert w[1] == 0
    torch.testing.assert_close(w[[0, 2, 3]], 0.75 * weights(j))


def test_it_is_fair_grad_at_one():
    for seed in range(6):
        j = gradients(seed)
        other = FairGrad(alpha=1).task_weights(j @ j.T, torch.ones(3))
        assert torch.equal(weights(j), other)


def test_duplicated_gradients_share_what_each_adds():
    j = gradients(0)
    twice = torch.cat([j, j[:1]]).numpy()
    w = fair_weights(twice @ twice.T, 1.0)
    assert w[0] == pytest.approx(w[3], rel=1e-6)
    np.testing.assert_allclose(w * (twice @ twice.T @ w), 1, rtol=1e-9)
