"""DualProj: the projection of the mean gradient, by its KKT conditions and by hand."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import DualProj
from mtlsk.testing import gradients


def weights(j):
    return DualProj().task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("seed", range(15))
def test_it_is_the_nearest_to_the_mean_that_conflicts_with_none(seed, ratio):
    j = gradients(seed, k=2 + seed % 6, m=9, ratio=ratio)
    w, norms, g0 = weights(j), j.norm(dim=1), j.mean(0)
    d, added = w @ j, w - 1 / len(j)
    progress = j @ d / norms / g0.norm()
    assert bool((progress >= -1e-9).all())
    assert bool((added >= 0).all())
    assert bool((progress[added * norms > 1e-9 * g0.norm()].abs() <= 1e-9).all())
    assert float(d.norm()) <= float(g0.norm()) * (1 + 1e-12)


def test_by_hand():
    # g0 = (3/2, 1), <g2, g0> < 0: its projection off g2 = (-1, 1) is (5/4, 5/4)
    j = torch.tensor([[4.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(j) @ j, torch.tensor([1.25, 1.25]).double())
    torch.testing.assert_close(weights(j), torch.tensor([0.5, 0.75]).double())


def test_a_mean_without_conflict_is_kept():
    j = gradients(1).abs()
    assert weights(j).tolist() == [1 / 3] * 3


def test_a_zero_gradient_shortens_the_mean_only():
    j = gradients(2)
    with_zero = torch.cat([j, torch.zeros(1, 8, dtype=torch.float64)])
    w = weights(with_zero)
    assert w[3] == 0
    torch.testing.assert_close(w[:3], 0.75 * weights(j))
