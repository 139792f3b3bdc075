"""IMTL-G: equal projections in J space, and the places where its weights are ours."""

from __future__ import annotations

import math

import pytest
import torch

from mtlsk.aggregators import IMTLG
from mtlsk.testing import gradients


def weights(j):
    return IMTLG().task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


@pytest.mark.parametrize("seed", range(30))
def test_all_unit_gradients_have_the_same_positive_projection(seed):
    j = gradients(seed, k=2 + seed % 6, m=9, ratio=[1.0, 1e3, 1e6][seed % 3])
    w = weights(j)
    d = w @ j
    projections = j @ d / j.norm(dim=1) / d.norm()
    torch.testing.assert_close(projections, projections.mean().expand(len(j)), rtol=1e-6, atol=0)
    assert projections[0] > 0
    assert float(w.abs().sum()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(12))
def test_the_closed_form_of_the_paper_up_to_its_sign(seed):
    # alpha_2..K = g_1 U' (D U')^-1 with D = g_1 - g_k, U = u_1 - u_k; alpha_1 = 1 - sum
    j = gradients(seed, k=4)
    u = j / j.norm(dim=1)[:, None]
    low, high = u[:1] - u[1:], j[:1] - j[1:]
    rest = j[0] @ low.T @ torch.linalg.inv(high @ low.T)
    alpha = torch.cat([1 - rest.sum().reshape(1), rest])
    w = weights(j)
    torch.testing.assert_close(w / w.sum(), alpha, rtol=1e-6, atol=1e-9)


def test_where_the_papers_weights_go_uphill_ours_do_not():
    uphill = 0
    for seed in range(60):
        j = gradients(seed, k=4, ratio=100.0)
        w = weights(j)
        d, printed = w @ j, w @ j / w.sum()
        assert bool((j @ d > 0).all())
        uphill += bool((j @ printed < 0).all())
    assert uphill > 3


def test_by_hand():
    j = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # d along (1, 1)
    torch.testing.assert_close(weights(j), torch.tensor([1 / 3, 2 / 3]).double())


def test_opposite_gradients_give_zero():
    for ratio in (1.0, 1e3):
        j = torch.tensor([[1.0, 2.0], [-ratio, -2 * ratio]], dtype=torch.float64)
        w = weights(j)
        assert float((w @ j).norm()) <= 1e-12 * math.sqrt(5)
        assert float(w.sum()) == pytest.approx(1)


def test_duplicates_share_and_zeros_are_left_out():
    j = gradients(1)
    twice = torch.cat([j, j[:1], torch.zeros(1, 8, dtype=torch.float64)])
    w = weights(twice)
    assert w[4] == 0
    assert w[0] == pytest.approx(float(w[3]))
    d, other = w @ twice, weights(j) @ j
    torch.testing.assert_close(d / d.norm(), other / other.norm())


def test_gradients_in_balance_give_zero_and_not_rounding_blown_up():
    turns = torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3)
    for norms in ([1.0, 1.0, 1.0], [1.0, 7.0, 0.3]):
        j = torch.stack([turns.cos(), turns.sin()], 1) * torch.tensor(norms).double()[:, None]
        w = weights(j)
        assert float((w @ j).norm()) <= 1e-12
        assert float(w.sum()) == pytest.approx(1)
