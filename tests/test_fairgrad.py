"""FairGrad: its optimality condition at every alpha, and the limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares, minimize

from mtlsk.aggregators import MGDA, FairGrad
from mtlsk.simplex import fair_weights
from mtlsk.testing import gradients

ALPHAS = [0.2, 0.5, 1.0, 2.0, 5.0, 20.0]


def weights(alpha, j):
    return FairGrad(alpha).task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", range(9))
def test_its_optimality_condition(seed, alpha):
    j = gradients(seed, k=2 + seed % 5, m=9, ratio=[1.0, 10.0, 100.0][seed % 3])
    g = (j @ j.T).numpy()
    w = fair_weights(g, alpha)
    assert w.min() > 0
    # at small alpha the power magnifies the rounding of w
    np.testing.assert_allclose(g @ w, w ** (-1 / alpha), rtol=1e-8 if alpha >= 1 else 1e-6)
    # divided by the Frobenius norm the same direction
    mine = weights(alpha, j).numpy()
    np.testing.assert_allclose(mine / mine.sum(), w / w.sum(), rtol=1e-7)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 10.0])
def test_norm_ratios_of_a_million(alpha):
    for seed in range(12):
        j = gradients(seed, k=4, ratio=1e6)
        g = (j @ j.T / (j @ j.T).norm()).numpy()
        w = fair_weights(g, alpha)
        np.testing.assert_allclose(g @ w, w ** (-1 / alpha), rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_a_general_solver_of_the_equations_agrees(seed):
    j = gradients(seed, k=4, ratio=3.0)
    g = (j @ j.T / (j @ j.T).norm()).numpy()
    found = least_squares(
        lambda x: g @ x - x**-0.5, np.full(4, 1.0), bounds=(1e-9, np.inf), xtol=1e-15, ftol=1e-15
    )
    np.testing.assert_allclose(fair_weights(g, 2.0), found.x, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 2.0, 5.0])
def test_no_direction_of_the_ball_is_fairer(alpha):
    j = gradients(1, k=4, m=5, ratio=3.0).numpy()
    d = weights(alpha, torch.from_numpy(j)).numpy() @ j
    d /= np.linalg.norm(d)

    def utility(x):
        return ((j @ x) ** (1 - alpha) / (1 - alpha)).sum()

    found = minimize(
        lambda x: -utility(x),
        0.5 * d,
        jac=lambda x: -((j @ x) ** -alpha) @ j,
        constraints={"type": "ineq", "fun": lambda x: 1 - x @ x, "jac": lambda x: -2 * x},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    np.testing.assert_allclose(found.x, d, atol=1e-3)


def test_more_fairness_goes_towards_the_best_worst_task_progress():
    for seed in range(12):
        j = gradients(seed, ratio=3.0)
        best = MGDA().task_weights(j @ j.T, torch.ones(3)) @ j
        cosines = []
        for alpha in ALPHAS[1:]:
            d = weights(alpha, j) @ j
            cosines.append(float(d @ best / d.norm() / best.norm()))
        assert cosines == sorted(cosines)
        assert cosines[-1] > 0.97


def test_by_hand():
    # orthogonal: |g|^2 w = w^(-1/2), w = |g|^(-4/3)
    g = np.diag([1.0, 8.0, 27.0])
    np.testing.assert_allclose(fair_weights(g, 2.0), [1, 1 / 4, 1 / 9], rtol=1e-9)
    same = torch.ones(4, 2, dtype=torch.float64)
    for alpha in ALPHAS:
        assert weights(alpha, same).tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_update_is_zero_where_no_direction_helps_all(alpha):
    j = torch.tensor([[1.0, 0.0], [-6.0, 8.0], [-0.6, -0.8]], dtype=torch.float64)
    assert float((weights(alpha, j) @ j).norm()) <= 1e-7
    opposite = torch.tensor([[1.0, 2.0, 0.0], [-3.0, -6.0, 0.0], [0.0, 0.0, 1.0]]).double()
    assert float((weights(alpha, opposite) @ opposite).norm()) <= 1e-7


def test_alpha_beyond_its_range_is_an_error():
    for alpha in (0, -1.0, 25.0, "1"):
        with pytest.raises(ValueError, match=r"alpha must be a number in \[0.05, 20\]"):
            FairGrad(alpha).check_domains()
