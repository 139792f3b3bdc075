"""SDMGrad: the optimality of its inner problem, its limits, and its online dual."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlsk.aggregators import MGDA, SDMGrad
from mtlsk.testing import gradients


def weights(lam, j):
    return SDMGrad(lam).task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(12))
def test_its_inner_problem_is_solved(seed, lam):
    j = gradients(seed, k=2 + seed % 6, m=9, ratio=[1.0, 10.0, 1e3][seed % 3])
    k = len(j)
    a = weights(lam, j)
    w = (1 + lam) * a - lam / k
    assert float(w.min()) >= -1e-12
    assert float(w.sum()) == pytest.approx(1)
    d = a @ j
    slope = j @ d  # of |g_w + lam g0|^2 / 2, over 1 + lam
    scale = float(j.norm(dim=1).max() * d.norm())
    # no weight moved between tasks would shorten it
    assert float(w @ slope) - float(slope.min()) <= 1e-9 * scale


def test_the_direction_is_best_for_its_length():
    """The dual problem: max min_i <g_i, d> + lam <g0, d> over |d| = 1, by random directions."""
    j, lam = gradients(2, k=3, m=3), 0.3

    def value(d):
        return ((j @ d.T).min(0).values + lam * (j.mean(0) @ d.T)) / d.norm(dim=1)

    generator = torch.Generator().manual_seed(0)
    others = torch.randn(50_000, 3, dtype=torch.float64, generator=generator)
    mine = float(value((weights(lam, j) @ j)[None]))
    best = float(value(others).max())
    assert best <= mine
    assert best >= 0.98 * mine


def test_its_limits():
    for seed in range(12):
        j = gradients(seed)
        mgda = MGDA().task_weights(j @ j.T, torch.ones(3))
        torch.testing.assert_close(weights(0.0, j) @ j, mgda @ j, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            weights(1e6, j), torch.full((3,), 1 / 3).double(), atol=1e-5, rtol=0
        )


def test_by_hand():
    # orthogonal unit gradients and equal weights by symmetry; then one four times the other:
    # shifted by lam/2 (g1 + g2) at lam = 1 they are (1.5, 2), (.5, 6): w1 = 1
    same = torch.eye(2, dtype=torch.float64)
    assert weights(1.0, same).tolist() == pytest.approx([0.5, 0.5])
    j = torch.tensor([[1.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(1.0, j), torch.tensor([0.75, 0.25]).double())


def test_a_shifted_gradient_of_zero_is_the_minimum():
    # g0 = (1, 0) and g2 = -g0 at lam = 1
    j = torch.tensor([[3.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    w = weights(1.0, j)
    assert float((w @ j).norm()) <= 1e-12
    torch.testing.assert_close(w, torch.tensor([0.25, 0.75]).double())


def test_a_short_gradient_is_not_taken_for_zero():
    j = gradients(0) * torch.tensor([[1.0], [1.0], [1e-9]], dtype=torch.float64)
    d = weights(0.0, j) @ j
    assert bool((j @ d >= -1e-9 * j.norm(dim=1) * d.norm()).all())


def test_a_zero_gradient_is_in_the_mean_only():
    j = gradients(3)
    with_zero = torch.cat([j, torch.zeros(1, 8, dtype=torch.float64)])
    a = weights(0.3, with_zero)
    assert float(a[3]) == pytest.approx(0.3 / 1.3 / 4)
    # the pull of a mean over four is that of three at three quarters
    w = (1.3 * a - 0.3 / 4)[:3]
    pulled = weights(0.225, j) * 1.225 - 0.075
    torch.testing.assert_close(w, pulled, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_with_a_zero_gradient_the_inner_problem_of_the_others_is_solved(seed):
    j = torch.cat([gradients(seed), torch.zeros(1, 8, dtype=torch.float64)])
    a = weights(3.0, j)
    w = (4 * a - 3 / 4)[:3]
    slope = j[:3] @ (a @ j)
    assert float(w.sum()) == pytest.approx(1)
    assert float(w @ slope) - float(slope.min()) <= 1e-9 * float(j.norm() ** 2)


def test_the_support_is_remembered_by_task():
    j = gradients(2, k=5, m=9)
    live = SDMGrad()
    live.task_weights(j @ j.T, torch.ones(5))
    assert set(live.state_dict()) == {"support_"}
    live.active_ = (0, 2, 4)
    part = j[[0, 2, 4]]
    w = live.task_weights(part @ part.T, torch.ones(3))
    torch.testing.assert_close(w @ part, weights(0.3, part) @ part, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.3, 3.0])
def test_following_its_dual_approaches_the_solution_on_average(lam):
    before, after = [], []
    for seed in range(12):
        j = gradients(seed, k=2 + seed % 6, m=12)
        g, k = j @ j.T, len(j)
        w0 = torch.full((k,), 1 / k, dtype=torch.float64)
        exact = weights(lam, j)
        live, updates = SDMGrad(lam), []
        w = live.dual_weights(k)
        for _ in range(600):
            alpha, beta = live.coefficients(float(w0 @ g @ w0), float(w0 @ g @ w), float(w @ g @ w))
            a = alpha * w0 + beta * w
            updates.append(a)
            w = live.advance(g @ a)
        unit = float(j.norm(dim=1).max()) ** 2
        gaps = [b - exact for b in (updates[0], torch.stack(updates[300:]).mean(0))]
        first, last = (float(gap @ g @ gap) / unit for gap in gaps)
        before.append(first)
        after.append(last)
    assert np.median(after) < 1e-4
    assert np.median(after) < 0.05 * np.median(before)
